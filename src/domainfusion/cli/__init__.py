"""The command line: a file for each verb, and what they share. Importing it loads neither torch nor
pydantic nor rich.
"""
