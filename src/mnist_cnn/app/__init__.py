"""The command line: Hydra, the settings of the commands, signals, the folders of runs, messages."""
