"""scikit-learn's conventions: checks, pipelines, W for new rows."""

import pytest
from sklearn.utils.estimator_checks import parametrize_with_checks

from dcf import CompressedNMF, CompressedSparsePCA


@parametrize_with_checks([CompressedNMF(2), CompressedSparsePCA(2)])
@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
def test_scikit_learns_checks(estimator, check):
    check(estimator)
