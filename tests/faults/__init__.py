"""Studies under real faults, compared bit for bit with an undisturbed study on the same machine.

    python -m tests.faults --rounds 50          the long form; --only REGEX, --seed N, --list
    pytest -m slow tests/test_faults.py         the short form

Nothing is mocked: processes are killed, disks fill up, a bucket's server answers 500, bits on the disk
are flipped. An independent journal (`tracer`) records every training step of every process, so the
harness sees repeated training without trusting the study's own records.
"""
