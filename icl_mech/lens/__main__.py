"""`python -m icl_mech.lens`: what would each layer say, and what do task vectors say?"""

from collections.abc import Sequence

from icl_mech.cli import room_main


def main(argv: Sequence[str] | None = None) -> None:
    """Run the subcommand that a flag asks for: `--vectors`; without one, the logit lens."""
    room_main("lens", argv)


if __name__ == "__main__":
    main()
