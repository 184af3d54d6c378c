"""Stories of task 3, "three supporting facts", made by its rules.

They stand in where the training file of this task is absent. What 385 of its 2,000 stories have in common is a set of
rules, which say how a story goes on:

- At first everybody and everything is in a place of its own, drawn uniformly, of which nothing is told.
- A statement is drawn by drawing somebody and one of move, get and drop, until that person can do it: move to another
  place, drawn from all six; get something that lies there; drop something carried.
- After every second statement a question is asked if one can be. A question is about an object that was got or dropped
  in the last five statements, and was carried to two places or more since it was last got: where it was before one of
  these, at the latest visit. It is drawn from all such objects, then from the places.
- Behind the fifth question the story ends.

Of 1,936 times that a question could be asked in those stories it was asked 1,925 times, and never at any other; the
later places of a journey are asked for a little more often there.
"""

import random
from dataclasses import dataclass, field
from functools import cache

STORIES = 2_000
"""As many as the official training file has; of five questions each."""
SEED = 3
"""Of the generator: its text is the same everywhere."""

PEOPLE = ("Mary", "John", "Sandra", "Daniel")
PLACES = ("bathroom", "bedroom", "garden", "hallway", "kitchen", "office")
OBJECTS = ("football", "apple", "milk")
MOVE = ("moved to", "journeyed to", "travelled to", "went to", "went back to")
GET = ("got", "grabbed", "took", "picked up")
DROP = ("dropped", "left", "put down", "discarded")

QUESTIONS = 5
STATEMENTS_BETWEEN = 2
REMEMBERED = 5
"""An object is asked for while it was got or dropped within so many statements."""
THERE = 0.2
"""Share of gets and drops that end in "there"."""


@dataclass
class Thing:
    """An object: where it is, who carries it, and the last journey that it made in somebody's hands."""

    place: str
    holder: str | None = None
    journey: list[tuple[int, str]] = field(default_factory=list)
    """The line and the place of every move since it was last got."""
    handled: tuple[int, int] = (0, 0)
    """The line and the statement at which it was last got or dropped."""


class World:
    """A story as it is told: `lines` is its text so far."""

    def __init__(self, rng: random.Random) -> None:
        self.rng = rng
        self.people = {person: rng.choice(PLACES) for person in PEOPLE}
        self.things = {name: Thing(rng.choice(PLACES)) for name in OBJECTS}
        self.lines: list[str] = []
        self.statements = 0

    def act(self) -> None:
        """Tell a statement."""
        self.statements += 1
        acts = (self._move, self._get, self._drop)
        while not self.rng.choice(acts)(self.rng.choice(PEOPLE)):
            pass

    def ask(self) -> bool:
        """Ask a question if one can be asked; says whether."""
        askable = {name: visits for name, thing in self.things.items() if (visits := self._visits(thing))}
        if not askable:
            return False
        name = self.rng.choice(list(askable))
        visit = self.rng.choice(askable[name])
        thing = self.things[name]
        (line_before, before), (line, place) = thing.journey[visit - 1 : visit + 1]
        self._tell(f"Where was the {name} before the {place}? \t{before}\t{thing.handled[0]} {line} {line_before}")
        return True

    def _visits(self, thing: Thing) -> list[int]:
        """Which moves of its last journey can be asked for: the latest to each place, but never the first of all."""
        if self.statements - thing.handled[1] >= REMEMBERED:
            return []
        return list({place: move for move, (_, place) in enumerate(thing.journey) if move > 0}.values())

    def _move(self, person: str) -> bool:
        place = self.rng.choice(PLACES)
        if place == self.people[person]:
            return False
        self.people[person] = place
        line = self._tell(f"{person} {self.rng.choice(MOVE)} the {place}.")
        for thing in self.things.values():
            if thing.holder == person:
                thing.place = place
                thing.journey.append((line, place))
        return True

    def _get(self, person: str) -> bool:
        near = [n for n, t in self.things.items() if t.holder is None and t.place == self.people[person]]
        if near:
            self._handle(person, GET, self.rng.choice(near), holder=person)
        return bool(near)

    def _drop(self, person: str) -> bool:
        carried = [name for name, thing in self.things.items() if thing.holder == person]
        if carried:
            self._handle(person, DROP, self.rng.choice(carried), holder=None)
        return bool(carried)

    def _handle(self, person: str, verbs: tuple[str, ...], name: str, holder: str | None) -> None:
        there = " there" if self.rng.random() < THERE else ""
        line = self._tell(f"{person} {self.rng.choice(verbs)} the {name}{there}.")
        thing = self.things[name]
        thing.holder, thing.handled = holder, (line, self.statements)
        if holder is not None:
            thing.journey = []

    def _tell(self, text: str) -> int:
        """Add a line; its number."""
        self.lines.append(f"{len(self.lines) + 1} {text}")
        return len(self.lines)


def story(rng: random.Random) -> list[str]:
    """The lines of a story in the bAbI format."""
    world, asked = World(rng), 0
    while asked < QUESTIONS:
        for _ in range(STATEMENTS_BETWEEN):
            world.act()
        asked += world.ask()
    return world.lines


@cache
def generated(stories: int = STORIES, seed: int = SEED) -> str:
    """So many stories, one after the other, as a file in the bAbI format has them."""
    rng = random.Random(seed)
    return "".join(f"{line}\n" for _ in range(stories) for line in story(rng))
