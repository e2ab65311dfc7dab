"""Image files read, and brought to the form in which a network takes them. Imports no torch."""
