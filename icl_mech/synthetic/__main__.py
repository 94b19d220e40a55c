"""`python -m icl_mech.synthetic`: train a small transformer on sparse linear regressions."""

from collections.abc import Sequence

from icl_mech.cli import room_main


def main(argv: Sequence[str] | None = None) -> None:
    """Run `icl-mech train` with these options."""
    room_main("synthetic", argv)


if __name__ == "__main__":
    main()
