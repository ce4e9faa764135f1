"""Many jobs, one or many machines: plans, a journal of what is done, and executors on this machine and on Ray.

A job is a command line, and its outcome an exit code and a JSON document, so that both are data that any process on
any node can take and give.
"""
