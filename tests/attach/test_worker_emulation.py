"""Workers in the process deliver what worker processes deliver, and leave as little behind.

Every comparison here is with torch's own worker processes, in the same test: the batches, and the states
of the main process's generators when the iterator is there and after each batch.
"""

from __future__ import annotations

import os
import random
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import nullcontext
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.utils.data import (
    DataLoader,
    Dataset,
    IterableDataset,
    Sampler,
    get_worker_info,
)
from torch.utils.data.dataloader import _BaseDataLoaderIter, _SingleProcessDataLoaderIter

from bygones.attach.worker_emulation import InProcessWorkers, emulating
from bygones.core.digest import digest
from bygones.core.errors import ScriptError
from bygones.training.generators import preserve_global_generators

pytestmark = pytest.mark.filterwarnings("ignore:This DataLoader will create")  # 3 workers, 2 cores

Make = Callable[..., DataLoader[Any]]


# ------------------------------------------------------------------ what is loaded


class Plain(Dataset[Any]):
    """Draws nothing, and knows how often it was asked."""

    def __init__(self, length: int = 23) -> None:
        self.values = torch.arange(length * 2.0).reshape(length, 2)
        self.asked = 0

    def __len__(self) -> int:
        return len(self.values)

    def __getitem__(self, index: int) -> Any:
        self.asked += 1
        return self.values[index], self.asked


class Globals(Plain):
    """Draws from the three global generators, an odd number of normals among them."""

    def __getitem__(self, index: int) -> Any:
        noise = (
            torch.randn(3),
            torch.rand(1),
            np.random.randn(),
            random.random(),
            random.gauss(0, 1),
        )
        return index, *noise, torch.initial_seed() % 2**31


class Private(Plain):
    """Draws from generators of its own, of which every worker has copies; writes into its own data."""

    def __init__(self) -> None:
        super().__init__()
        self.numpy = np.random.default_rng(3)
        self.old = np.random.RandomState(4)
        self.torch = torch.Generator().manual_seed(5)
        self.python = random.Random(6)
        self.also_numpy = self.numpy  # the copies have to be one object too
        self.module = np
        self.default = torch.default_generator

    def __getitem__(self, index: int) -> Any:
        self.values[index] *= 1.5
        drawn = (
            self.numpy.normal(),
            self.also_numpy.random(),
            self.old.randn(),
            self.python.random(),
        )
        theirs = torch.rand(2, generator=self.torch), torch.rand(1, generator=self.default)
        return self.values[index].clone(), *super().__getitem__(index), *drawn, *theirs


class Batched(Plain):
    """Is asked for whole batches, and takes the list apart that it is given."""

    def __getitems__(self, indices: list[int]) -> list[Any]:
        return [(indices.pop(), random.random()) for _ in range(len(indices))]


class Objects(Plain):
    """Gives out its own objects: whoever changes a batch must not change them."""

    def __init__(self) -> None:
        super().__init__()
        self.items = [{"n": [i], "array": np.arange(3.0) + i, "none": None} for i in range(23)]

    def __getitem__(self, index: int) -> Any:
        self.items[index]["n"].append(len(self.items[0]["n"]))
        return self.items[index]


class Fails(Globals):
    def __getitem__(self, index: int) -> Any:
        if index % 7 == 3:
            raise {3: KeyError, 10: ValueError, 17: StopIteration}[index](f"no example {index}")
        return super().__getitem__(index)


class Shards(IterableDataset[Any]):
    """Parts of uneven length, by worker; the first is the shortest if `shortest` is 0."""

    def __init__(self, shortest: int = 0) -> None:
        self.shortest = shortest
        self.epoch = 0

    def __iter__(self) -> Iterator[Any]:
        info = get_worker_info()
        assert info is not None
        assert info.dataset is self
        self.epoch += 1
        shift = random.random()
        for n in range(3 + 5 * ((info.id - self.shortest) % info.num_workers)):
            yield info.id, n, self.epoch, info.seed % 2**31, shift, torch.rand(1), np.random.rand()


class Undivided(IterableDataset[Any]):
    def __iter__(self) -> Iterator[Any]:
        return iter(range(5))


class DrawsEachTime(Sampler[int]):
    """Draws from the global generators for every index, and when it is begun."""

    def __init__(self, length: int = 23) -> None:
        self.length = length

    def __iter__(self) -> Iterator[int]:
        first = random.randrange(self.length)
        return self._rest(first)

    def _rest(self, first: int) -> Iterator[int]:
        yield first
        for _ in range(self.length - 1):
            yield (
                int(torch.randint(self.length, (1,))) // 2
                + int(np.random.randint(self.length)) // 2
            )

    def __len__(self) -> int:
        return self.length


class Uneven(Sampler[list[int]]):
    """A batch sampler of uneven batches, drawn anew each epoch."""

    def __iter__(self) -> Iterator[list[int]]:
        for size in (3, 1, 4, 1, 5, 2, 6):
            yield [random.randrange(23) for _ in range(size)]


class Reuses(Sampler[list[int]]):
    """A batch sampler that fills one list again and again."""

    def __iter__(self) -> Iterator[list[int]]:
        batch = [0, 0]
        for place in range(6):
            batch[:] = 2 * place, 2 * place + 1
            yield batch


def reseeds(worker: int) -> None:
    seed = torch.initial_seed() % 2**32
    np.random.seed(seed)
    random.seed(seed + worker)


def reseeds_alike_and_writes(worker: int) -> None:
    info = get_worker_info()
    assert info is not None
    torch.manual_seed(7)
    np.random.seed(7)
    dataset: Any = info.dataset
    dataset.values += worker + info.num_workers


def breaks_second(worker: int) -> None:
    if worker == 1:
        raise ValueError("this worker does not begin")


def as_they_are(batch: Any) -> Any:
    return batch


class Collates:
    """Is copied with the dataset, counts for each worker, and draws."""

    def __init__(self, dataset: Plain) -> None:
        self.dataset = dataset
        self.calls = 0

    def __call__(self, batch: Any) -> Any:
        self.calls += 1
        return [index for index, *_ in batch], self.calls, self.dataset.asked, random.random()


# ------------------------------------------------------------------ what is compared


def loader(dataset: Any, *, workers: int = 2, **settings: Any) -> DataLoader[Any]:
    """Batches of 4 unless told otherwise, from worker processes that are forked."""
    if "batch_sampler" not in settings:
        settings = {"batch_size": 4} | settings
    return DataLoader(dataset, num_workers=workers, multiprocessing_context="fork", **settings)


def generators() -> str:
    """The states of the main process's generators."""
    return digest([torch.get_rng_state(), np.random.get_state(), random.getstate()])


def draw() -> None:
    """What training draws in between."""
    torch.rand(2)
    np.random.rand()
    random.random()


def plain(value: Any) -> Any:
    """A batch in a form that `==` compares to the bit."""
    if isinstance(value, Tensor | np.ndarray | float):
        return type(value).__name__, digest(value)
    if isinstance(value, dict):
        return {key: plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return type(value).__name__, [plain(item) for item in value]
    return value


def told(error: Exception) -> tuple[str, str, str]:
    """What an error says, without the lines of the traceback in it."""
    lines = str(error).strip().splitlines() or [""]
    return type(error).__name__, lines[0], lines[-1]


def trained(
    make: Make,
    emulated: bool,
    epochs: Sequence[int | None] = (None,),
    used: Callable[[Any], None] = lambda batch: None,
) -> list[Any]:
    """Everything that a script sees which iterates over a loader and draws in between.

    `epochs`: after how many batches each is broken off.
    """
    torch.manual_seed(1)
    np.random.seed(2)
    random.seed(3)
    with emulating() if emulated else nullcontext():
        made = make()
        seen: list[Any] = []
        for length in epochs:
            batches = iter(made)
            assert isinstance(batches, InProcessWorkers) == emulated
            seen.append(generators())
            while length is None or length > 0:
                length = None if length is None else length - 1
                try:
                    batch = next(batches)
                except Exception as error:
                    ended = isinstance(error, StopIteration)
                    seen.append(("ended" if ended else "raised", generators(), told(error)))
                    error.__traceback__ = None  # its frames would keep real workers waiting
                    if ended:
                        break
                    continue
                seen.append((plain(batch), generators()))
                used(batch)
                draw()
            del batches
    return seen


def both(make: Make, epochs: Sequence[int | None], **settings: Any) -> list[Any]:
    """Asserts that a script cannot tell the workers from real ones; gives what it saw."""
    here = trained(make, True, epochs, **settings)
    there = trained(make, False, epochs, **settings)
    assert len(here) == len(there)
    for place, (one, other) in enumerate(zip(here, there, strict=True)):
        assert one == other, f"entry {place}"
    return here


# ------------------------------------------------------------------ bit for bit


@pytest.mark.parametrize("persistent", [False, True])
@pytest.mark.parametrize("ahead", [2, 4])
@pytest.mark.parametrize("workers", [1, 2, 3])
def test_epochs_are_alike_whole_and_broken_off(workers: int, ahead: int, persistent: bool):
    def make() -> DataLoader[Any]:
        kept = {"persistent_workers": persistent, "prefetch_factor": ahead}
        return loader(Globals(), workers=workers, shuffle=True, **kept)

    both(make, [None, 2, None])


@pytest.mark.parametrize("persistent", [False, True])
@pytest.mark.parametrize("dataset", [Private, Batched, Objects])
def test_each_worker_has_copies_of_the_dataset(dataset: type[Plain], persistent: bool):
    """Private generators, counters and data go their own way in each, and on in those that stay."""

    def spoil(batch: Any) -> None:
        for item in batch:
            if isinstance(item, dict):
                item["n"].append(1000)
                item["array"] += 1000

    def make() -> DataLoader[Any]:
        collate = as_they_are if dataset is Objects else None
        kept = {"persistent_workers": persistent, "collate_fn": collate}
        return loader(dataset(), workers=3, shuffle=True, **kept)

    both(make, [1, None], used=spoil)


def test_the_main_process_keeps_its_dataset():
    dataset = Private()
    before = digest([dataset.values, dataset.numpy.bit_generator.state, dataset.asked])
    trained(lambda: loader(dataset), True)
    assert digest([dataset.values, dataset.numpy.bit_generator.state, dataset.asked]) == before
    assert get_worker_info() is None


@pytest.mark.parametrize("persistent", [False, True])
@pytest.mark.parametrize("init", [reseeds, reseeds_alike_and_writes, breaks_second])
def test_worker_init_fn(init: Callable[[int], None], persistent: bool):
    def make() -> DataLoader[Any]:
        kept = {"worker_init_fn": init, "persistent_workers": persistent}
        return loader(Globals() if init is reseeds else Private(), shuffle=True, **kept)

    both(make, [3] if init is breaks_second else [None, None])


@pytest.mark.parametrize("ahead", [2, 4])
@pytest.mark.parametrize("workers", [1, 3])
def test_a_sampler_is_asked_at_the_same_moments(workers: int, ahead: int):
    """It draws from the global generators, and training draws in between, so every moment shows."""

    def make() -> DataLoader[Any]:
        return loader(Globals(), workers=workers, prefetch_factor=ahead, sampler=DrawsEachTime())

    seen = both(make, [3, None])
    assert len({entry for entry in seen if isinstance(entry, str)}) == 2


@pytest.mark.parametrize("persistent", [False, True])
def test_a_generator_of_the_loaders_own(persistent: bool):
    own = torch.Generator()
    drawn: list[str] = []

    def make() -> DataLoader[Any]:
        own.manual_seed(11)
        kept = {"generator": own, "persistent_workers": persistent}
        return loader(Globals(), shuffle=True, **kept)

    both(make, [3, None], used=lambda batch: drawn.append(digest(own.get_state())))
    assert drawn[: len(drawn) // 2] == drawn[len(drawn) // 2 :]


@pytest.mark.parametrize(
    "settings",
    [
        {"drop_last": True, "shuffle": True},
        {"batch_size": None},
        {"batch_size": None, "shuffle": True},
        {"batch_sampler": Uneven()},
        {"in_order": True, "timeout": 60},
        {"batch_size": 40},
    ],
    ids=lambda settings: " ".join(settings),  # no addresses: workers have to agree on names
)
def test_the_ways_to_make_batches(settings: dict[str, Any]):
    both(lambda: loader(Globals(), **settings), [2, None])


def test_collating_counts_for_each_worker():
    """`collate_fn` and the dataset that it holds are copied as one."""

    def make() -> DataLoader[Any]:
        dataset = Plain()
        return loader(dataset, workers=3, collate_fn=Collates(dataset))

    both(make, [None, None])


@pytest.mark.parametrize("persistent", [False, True])
@pytest.mark.parametrize("shortest", [0, 1])
@pytest.mark.parametrize("workers", [2, 3])
def test_uneven_shards_of_an_iterable_dataset(workers: int, shortest: int, persistent: bool):
    def make() -> DataLoader[Any]:
        kept = {"persistent_workers": persistent, "batch_size": 2, "drop_last": bool(shortest)}
        return loader(Shards(shortest), workers=workers, **kept)

    seen = both(make, [None, None])
    assert sum(entry[0] == "ended" for entry in seen) == 2


def test_an_iterable_dataset_without_batches_or_shards():
    both(lambda: loader(Undivided(), batch_size=None, workers=3), [4, None])


@pytest.mark.parametrize("persistent", [False, True])
def test_errors_are_raised_where_and_as_they_would_be(persistent: bool):
    """And a loop that catches them goes on."""

    def make() -> DataLoader[Any]:
        kept = {"persistent_workers": persistent, "batch_size": 1}
        return loader(Fails(), sampler=range(23), **kept)

    seen = both(make, [None, None])
    assert [entry[2][0] for entry in seen if entry[0] == "raised"] == 2 * ["KeyError", "ValueError"]
    assert seen[-1][2][:2] == (
        "StopIteration",
        "Caught StopIteration in DataLoader worker process 1.",
    )


# ------------------------------------------------------------------ what the callers rely on


def test_only_loaders_with_workers_and_only_inside():
    with emulating():
        here = iter(loader(Plain()))
        assert isinstance(here, InProcessWorkers)
        assert isinstance(here, _BaseDataLoaderIter)
        assert isinstance(iter(DataLoader(Plain(), batch_size=4)), _SingleProcessDataLoaderIter)
    outside = iter(loader(Plain()))
    assert not isinstance(outside, InProcessWorkers)


def test_the_examples_of_each_batch_are_known():
    with emulating():
        batches: Any = iter(loader(Globals(), workers=3, shuffle=True))
        assert batches.delivered_index is None
        for batch in batches:
            assert batch[0].tolist() == batches.delivered_index
        taken_apart: Any = iter(loader(Batched()))
        next(taken_apart)
        assert taken_apart.delivered_index == [0, 1, 2, 3]
        shards: Any = iter(loader(Shards(), batch_size=2))
        next(shards)
        assert shards.delivered_index is None


def test_a_sampler_may_use_a_list_again():
    """Real workers are told in another thread, so there this is a race; here it never is one."""
    with emulating():
        shown = [index.tolist() for index, *_ in loader(Globals(), batch_sampler=Reuses())]
    assert shown == [[n, n + 1] for n in range(0, 12, 2)]


def test_other_examples_are_read_and_the_sampler_asked_alike():
    """A replaced index changes which examples come, and no draw of the main process."""

    def run(replace: bool) -> tuple[list[Any], list[str]]:
        with preserve_global_generators(), emulating():
            torch.manual_seed(0)
            batches: Any = iter(loader(Globals(), sampler=DrawsEachTime()))
            shown, states = [], []
            for place, batch in enumerate(batches):
                assert batch[0].tolist() == batches.delivered_index
                shown.append(batches.delivered_index)
                states.append(generators())
                if place == 1 and replace:
                    batches.replace_index = lambda index: [22 - i for i in index]
        return shown, states

    (control, as_drawn), (treated, as_treated) = run(False), run(True)
    assert treated[:2] == control[:2]
    assert treated[2:] == [[22 - i for i in index] for index in control[2:]]
    assert as_treated == as_drawn


@pytest.mark.parametrize("persistent", [False, True])
def test_after_a_fork_both_go_on_alike(persistent: bool):
    """In mid-epoch, into the next epoch; what the child changes in place stays in the child."""
    torch.manual_seed(4)
    with emulating():
        made = loader(Private(), workers=3, shuffle=True, persistent_workers=persistent)
        batches = iter(made)
        held = [next(batches) for _ in range(2)]
        reader, writer = os.pipe()
        python = random.getstate()
        child = os.fork()
        if not child:
            status = 1
            try:
                random.setstate(python)  # which Python seeds anew in a child
                rest = [plain(held), [plain(b) for b in batches], [plain(b) for b in made]]
                for batch in held:
                    batch[0].zero_()
                os.write(writer, digest([rest, generators()]).encode())
                status = 0
            finally:
                os._exit(status)
        assert os.waitpid(child, 0)[1] == 0
        rest = [plain(held), [plain(b) for b in batches], [plain(b) for b in made]]
        assert digest([rest, generators()]).encode() == os.read(reader, 100)
    os.close(reader)
    os.close(writer)


def test_batches_lie_in_ordinary_memory():
    """Shared memory would tie a forked process to its twin. Aliases of one tensor stay aliases."""
    with emulating():
        for x, asked in loader(Plain()):
            assert not x.is_shared()
            assert not asked.is_shared()
    tensor = torch.ones(2, requires_grad=True)
    with emulating():
        (batch,) = loader([{"a": tensor, "b": tensor}], batch_size=None)
    assert batch["a"] is batch["b"]
    assert batch["a"] is not tensor
    assert batch["a"].requires_grad


def test_what_cannot_be_copied_is_refused_in_a_sentence():
    dataset: Any = Plain()
    dataset.lock = threading.Lock()
    with emulating(), pytest.raises(ScriptError, match=r"the dataset Plain, .* cannot be copied"):
        iter(loader(dataset))


def test_a_dataset_may_hold_an_iterator_over_itself():
    """As a trainer does that is asked for its own examples."""
    dataset: Any = Plain()
    with emulating():
        dataset.batches = iter(loader(dataset))
        assert len(list(loader(dataset))) == 6
