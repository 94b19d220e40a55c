"""`python -m icl_mech.patchscope`: what does the model say of a task vector?"""

from collections.abc import Sequence

from icl_mech.cli import room_main


def main(argv: Sequence[str] | None = None) -> None:
    """Run `icl-mech patchscope` with these options."""
    room_main("patchscope", argv)


if __name__ == "__main__":
    main()
