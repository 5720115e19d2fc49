"""Nonnegative least squares on the normal equations, a row a problem.

Every function solves, for each row ``a`` of ``A`` independently,

    minimise  ½ xᵀ G x − aᵀ x   subject to  x ≥ 0,

which is ``min ‖m − x H‖`` with ``a = m Hᵀ`` and ``G = H Hᵀ``. `gram_nnls` is exact (block
principal pivoting, Kim & Park, SIAM J. Sci. Comput. 2011); `descend_rows` makes a few sweeps
of cyclic coordinate descent, the step of HALS (Cichocki & Phan 2009) as Gillis & Glineur
(Neural Computation 2012) accelerate it.
"""

import numpy as np
from numpy.typing import NDArray

from dcf.solvers.jit import kernel

Matrix = NDArray[np.float64]


@kernel
def descend_rows(a: Matrix, g: Matrix, x: Matrix, sweeps: int, tol: float) -> None:
    """Sweep coordinate descent over each row of `x` in place.

    Parameters
    ----------
    a : (n, r) linear terms
    g : (r, r) Gram matrix, symmetric, positive semidefinite
    x : (n, r) start, overwritten; every entry stays ≥ 0
    sweeps : most sweeps over the r coordinates of a row
    tol : a row ends when a sweep lowers its objective by less than `tol` times the first one
    """
    n, r = x.shape
    gradient = np.empty(r)
    for i in range(n):
        for k in range(r):
            if g[k, k] <= 0.0:
                x[i, k] = 0.0
        gradient[:] = -a[i]
        for k in range(r):
            if x[i, k] != 0.0:
                gradient += x[i, k] * g[k]
        first = 0.0
        for sweep in range(sweeps):
            decrease = 0.0
            for k in range(r):
                diagonal = g[k, k]
                if diagonal <= 0.0:
                    continue
                value = max(0.0, x[i, k] - gradient[k] / diagonal)
                step = value - x[i, k]
                if step != 0.0:
                    x[i, k] = value
                    decrease += step * step * diagonal
                    for j in range(r):
                        gradient[j] += step * g[k, j]
            if sweep == 0:
                first = decrease
            if decrease <= tol * first:
                break


@kernel
def _cholesky(g: Matrix, index: NDArray[np.int64], size: int, factor: Matrix) -> bool:
    """Factorize g[index, index] into the lower triangle of `factor`; False where it is singular."""
    for row in range(size):
        for column in range(row + 1):
            total = g[index[row], index[column]]
            for j in range(column):
                total -= factor[row, j] * factor[column, j]
            if row > column:
                factor[row, column] = total / factor[column, column]
            elif total <= 1e-13 * g[index[row], index[row]]:
                return False
            else:
                factor[row, row] = np.sqrt(total)
    return True


@kernel
def _solve(factor: Matrix, size: int, b: Matrix) -> None:
    """Solve L Lᵀ x = b in place for the leading `size` entries."""
    for row in range(size):
        total = b[row]
        for j in range(row):
            total -= factor[row, j] * b[j]
        b[row] = total / factor[row, row]
    for row in range(size - 1, -1, -1):
        total = b[row]
        for j in range(row + 1, size):
            total -= factor[j, row] * b[j]
        b[row] = total / factor[row, row]


@kernel
def _pivot_row(
    a: Matrix,
    g: Matrix,
    x: Matrix,
    index: NDArray[np.int64],
    factor: Matrix,
    b: Matrix,
    passive: NDArray[np.bool_],
    full: Matrix,
    full_is_regular: bool,
) -> bool:
    """Block principal pivoting of one row from the passive set {x > 0}; False where it fails."""
    r = x.shape[0]
    scale = 0.0
    for k in range(r):
        passive[k] = x[k] > 0.0 and g[k, k] > 0.0
        scale = max(scale, abs(a[k]))
    fewest, patience = r + 1, 3
    for _ in range(5 * r + 10):
        size = 0
        for k in range(r):
            if passive[k]:
                index[size] = k
                b[size] = a[k]
                size += 1
        if size == r and full_is_regular:
            _solve(full, size, b)
        elif _cholesky(g, index, size, factor):
            _solve(factor, size, b)
        else:
            return False
        x[:] = 0.0
        largest = 0.0
        for j in range(size):
            x[index[j]] = b[j]
            largest = max(largest, abs(b[j]))
        wrong, last = 0, -1
        for k in range(r):
            if passive[k]:
                infeasible = x[k] < -1e-13 * largest
            else:
                dual = -a[k]
                for j in range(size):
                    dual += g[k, index[j]] * b[j]
                infeasible = dual < -1e-12 * scale and g[k, k] > 0.0
            if infeasible:
                wrong, last = wrong + 1, k
                b[r + k] = 1.0
            else:
                b[r + k] = 0.0
        if wrong == 0:
            for k in range(r):
                x[k] = max(0.0, x[k])
            return True
        if wrong < fewest:
            fewest, patience = wrong, 3
            only = -1
        elif patience > 0:
            patience -= 1
            only = -1
        else:
            only = last
        for k in range(r):
            if b[r + k] > 0.0 and (only < 0 or k == only):
                passive[k] = not passive[k]
    return False


@kernel
def _lawson_hanson_row(
    a: Matrix, g: Matrix, x: Matrix, index: NDArray[np.int64], factor: Matrix, b: Matrix
) -> None:
    """Solve one row from the empty passive set, never letting it become singular.

    Lawson & Hanson, *Solving least squares problems*, 1974, ch. 23, on the normal equations; a
    variable that would make the passive part of `g` singular is passed over.
    """
    r = x.shape[0]
    passive, blocked = np.zeros(r, np.bool_), np.zeros(r, np.bool_)
    x[:] = 0.0
    scale = np.abs(a).max()
    for _ in range(10 * r + 10):
        entering, steepest = -1, 1e-12 * scale
        for k in range(r):
            if not passive[k] and not blocked[k]:
                dual = a[k]
                for j in range(r):
                    dual -= g[k, j] * x[j]
                if dual > steepest:
                    entering, steepest = k, dual
        if entering < 0:
            return
        passive[entering] = True
        while True:
            size = 0
            for k in range(r):
                if passive[k]:
                    index[size] = k
                    b[size] = a[k]
                    size += 1
            if size == 0:
                break
            if not _cholesky(g, index, size, factor):
                passive[entering] = False
                blocked[entering] = True
                break
            _solve(factor, size, b)
            step = 1.0
            for j in range(size):
                if b[j] <= 0.0:
                    step = min(step, x[index[j]] / (x[index[j]] - b[j] + 1e-300))
            for j in range(size):
                k = index[j]
                x[k] += step * (b[j] - x[k])
                if b[j] <= 0.0 and x[k] <= 1e-14 * abs(b[j]):
                    x[k] = 0.0
                    passive[k] = False
            if step == 1.0:
                blocked[:] = False
                break


@kernel
def gram_nnls(a: Matrix, g: Matrix, x: Matrix) -> None:
    """Solve every row exactly, in place, from the passive set {x > 0} of the start.

    Parameters
    ----------
    a : (n, r) linear terms
    g : (r, r) Gram matrix, symmetric, positive semidefinite
    x : (n, r) start, overwritten by the solution

    Where the passive part of `g` is singular (duplicate or vanished components) the row is
    solved by Lawson and Hanson's algorithm instead, which picks one of the equal solutions.
    """
    n, r = x.shape
    index, factor, b = np.empty(r, np.int64), np.empty((r, r)), np.empty(2 * r)
    passive, full = np.empty(r, np.bool_), np.empty((r, r))
    for k in range(r):
        index[k] = k
    full_is_regular = _cholesky(g, index, r, full)
    for i in range(n):
        if not _pivot_row(a[i], g, x[i], index, factor, b, passive, full, full_is_regular):
            _lawson_hanson_row(a[i], g, x[i], index, factor, b)


def inverse_gram(gram: Matrix) -> Matrix:
    """Return the pseudoinverse (r, r) of a Gram matrix."""
    return np.asarray(np.linalg.pinv(gram, rcond=1e-13, hermitian=True))


def nonnegative_solve(a: Matrix, g: Matrix) -> Matrix:
    """Return the (n, r) solution of every row of `a` (n, r), started from the unconstrained one."""
    x = np.maximum(a @ inverse_gram(g), 0.0)
    gram_nnls(np.ascontiguousarray(a), np.ascontiguousarray(g), x)
    return x


def projected_gradient(a: Matrix, g: Matrix, x: Matrix) -> Matrix:
    """Return the (n, r) KKT violation: the gradient where x > 0, its negative part where x = 0."""
    gradient = x @ g - a
    return np.where(x > 0.0, gradient, np.minimum(gradient, 0.0))
