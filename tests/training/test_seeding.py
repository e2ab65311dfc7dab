"""Seeds of epochs and ranks."""

from hypothesis import given
from hypothesis import strategies as st

from mnist_cnn.training.seeding import epoch_seed


@given(st.integers(0, 2**32 - 1), st.integers(0, 1000), st.integers(0, 63))
def test_epochs_and_ranks_have_different_seeds(seed: int, epoch: int, rank: int) -> None:
    seeds = {
        epoch_seed(seed, epoch, rank),
        epoch_seed(seed, epoch + 1, rank),
        epoch_seed(seed, epoch, rank + 1),
    }
    assert len(seeds) == 3
    assert all(0 <= one < 2**32 for one in seeds)
    assert epoch_seed(seed, epoch, rank) == epoch_seed(seed, epoch, rank)
