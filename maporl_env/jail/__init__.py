"""Programs that `maporl_env.sandbox` starts, each in a new interpreter without site-packages.

Only the standard library may be imported here, and only from within the package otherwise.

    supervisor   trusted; one per batch. Forks, per program, a worker and a checker; keeps the time
    worker       runs the untrusted program and answers calls of its function; knows no test
    checker      runs the trusted tests; calls the function through a pipe; gives the verdict
    room         the file system that a worker sees
    kernel       the system calls that Python does not offer
    filters      the list of system calls that a worker is refused
    frames       messages on pipes and the values in them
"""
