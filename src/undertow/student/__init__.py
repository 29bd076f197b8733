"""What makes the student: carrier rows to a LoRA adapter.

`training` is one student by TRL, `together` several on one frozen base; `packing` lays rows end
to end without padding.
"""
