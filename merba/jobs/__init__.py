"""The jobs of the workflow's rules, one file each, which know nothing of Snakemake.

A file is named like its rule (`counts` serves two) and has `run`: it reads a job's files, calls the stage, writes the files, and
keeps the log. What the file imports is the code that the rule's results depend on (`merba.code`).
"""
