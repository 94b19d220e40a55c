from .result import KnowledgeConflict as KnowledgeConflict
from .run import knowledge_conflict as knowledge_conflict
