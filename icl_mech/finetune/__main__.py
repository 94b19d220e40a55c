"""`python -m icl_mech.finetune`: what does training some blocks change?"""

from collections.abc import Sequence

from icl_mech.cli import room_main


def main(argv: Sequence[str] | None = None) -> None:
    """Run `icl-mech finetune`."""
    room_main("finetune", argv)


if __name__ == "__main__":
    main()
