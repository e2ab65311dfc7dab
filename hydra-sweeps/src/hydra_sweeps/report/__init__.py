"""The report of a sweep: tables, files and figures."""
