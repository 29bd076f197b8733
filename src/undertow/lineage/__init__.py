"""What git and DVC know.

What a stage reads and writes, by hash, lies in stages; dvc.lock in lock, the cache in objects, the
commit in git, and handing finished stages over to DVC in handover.
"""
