"""Studies, each of which answers a question: trainings, measurements, a figure and a page."""

from torchdnc.studies import addresses, full, links, resize, retention, reuse, scale
from torchdnc.studies.study import Plan, Study, run, save, save_page

STUDIES: dict[str, Study] = {
    "retention": retention.STUDY,
    "addresses": addresses.STUDY,
    "links": links.STUDY,
    "full": full.STUDY,
    "reuse": reuse.STUDY,
    "resize": resize.STUDY,
    "scale": scale.STUDY,
}

__all__ = ["STUDIES", "Plan", "Study", "run", "save", "save_page"]
