"""Studies, each of which answers a question: trainings, measurements, a figure and a page."""

from torchdnc.studies import full, links
from torchdnc.studies.study import Plan, Study, run, save

STUDIES: dict[str, Study] = {"full": full.STUDY, "links": links.STUDY}

__all__ = ["STUDIES", "Plan", "Study", "run", "save"]
