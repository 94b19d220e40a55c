"""`python -m icl_mech <command>`: the same as `icl-mech <command>`."""

from icl_mech.cli import main

if __name__ == "__main__":
    main()
