from .plan import as_pairs as as_pairs, paper_pairs as paper_pairs
from .result import CONDITIONS as CONDITIONS, ConflictingTasks as ConflictingTasks
from .run import conflicting_tasks as conflicting_tasks
from .sampling import ConflictUndefined as ConflictUndefined, draw_conflict as draw_conflict
