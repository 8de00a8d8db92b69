"""The environments in the form that other libraries take them: `trl` and `verifiers`.

Neither is imported before it is asked for; each is an extra of its own.
"""
