"""A study under real faults, held against an undisturbed one of the same machine, bit for bit.

    python -m tests.faults --rounds 50          the long form; --only REGEX, --seed N, --list
    pytest tests/test_faults.py                 the short form

Nothing is mocked: processes are killed, disks fill up, a bucket's server answers 500, bytes on the disk
are flipped. An independent journal (`tracer`) notes every training step that any process makes, and
from it, not from what the study says of itself, the harness tells what was trained twice.
"""
