"""CPU kernels of the scan and its convolution, compiled by Numba.

They work through a range of tasks without the GIL; which thread runs a task changes no result. Arrays are float32 and
contiguous, channels a multiple of LANES, states of STATES; shapes are those of `merba.scan.ops`, except A
(K, channels/16, n, 16), times log2(e), and the convolution's weight (K, 3, channels).
"""

from __future__ import annotations

import numpy as np

from merba.scan.numba_lanes import (
    BLOCK,
    LANES,
    ONE,
    STATES,
    ZERO,
    add_channel_sums,
    exp2,
    kernel,
    load,
    load_block,
    load_over_channels,
    load_over_states,
    prefetch,
    softplus_and_slope,
    spread,
    store,
    sum_states,
    zeros,
)

LN2 = np.float32(0.6931471805599453)


@kernel
def scratch(size):
    """Uninitialised float32 numbers that start on a cache line."""
    memory = np.empty(size + LANES, np.float32)
    start = (-memory.ctypes.data // 4) % LANES
    return memory[start : start + size]


@kernel
def path_length(path):
    """Number of real tokens of a path; the rest of it is -1."""
    steps = 0
    while steps < path.size and path[steps] >= 0:
        steps += 1
    return steps


@kernel
def sum_groups(partial):
    """Add all rows of `partial` to its first one, in order."""
    for group in range(1, partial.shape[0]):
        partial[0] += partial[group]


# ---------------------------------------------------------------------------------------------- selective scan


@kernel
def read_steps(u, delta, origin, path, c, shift, softplus, xs, dts, dt_xs, slopes):
    """Sixteen channels of u, Δ, Δu and the derivative of Δ at each step of a path → number of steps."""
    steps = path_length(path)
    for t in range(steps):
        at, place = t * LANES, (origin + path[t]) * u.shape[3] + c
        x, dt, slope = load(u, place), load(delta, place) + shift, spread(ONE)
        if softplus:
            dt, slope = softplus_and_slope(dt)
        store(xs, at, x)
        store(dts, at, dt)
        store(dt_xs, at, dt * x)
        store(slopes, at, slope)
    return steps


@kernel
def scan_forward(first, last, u, delta, A, B, C, D, bias, paths, softplus, y):
    """Tasks are single sequences: directions × batch × windows, the last fastest."""
    batch, directions, tokens, channels = u.shape
    _, windows, length = paths.shape
    n_state = B.shape[3]
    xs, dts, dt_xs, slopes = (
        scratch(length * LANES), scratch(length * LANES), scratch(length * LANES), scratch(length * LANES)
    )  # fmt: skip
    results = xs  # each token's result replaces its u

    for task in range(first, last):
        k, b, w = task // (batch * windows), task // windows % batch, task % windows
        origin, path = (b * directions + k) * tokens, paths[k, w]
        for c in range(0, channels, LANES):
            shift, skip = load(bias, k * channels + c), load(D, k * channels + c)
            steps = read_steps(u, delta, origin, path, c, shift, softplus, xs, dts, dt_xs, slopes)
            for t in range(steps):
                store(results, t * LANES, skip * load(xs, t * LANES))
            for n in range(0, n_state, STATES):
                rates = load_block(A, (k * channels + c) * n_state + n * LANES)
                h = zeros()
                for t in range(steps):
                    at, state = t * LANES, (origin + path[t]) * n_state + n
                    ahead = (origin + path[t]) * channels + c + LANES
                    prefetch(u, ahead)
                    prefetch(delta, ahead)
                    prefetch(y, ahead)
                    h = exp2(load_over_states(dts, at) * rates) * h
                    h = h + load_over_states(dt_xs, at) * load_over_channels(B, state)
                    store(results, at, load(results, at) + sum_states(h * load_over_channels(C, state)))
            for t in range(steps):
                store(y, (origin + path[t]) * channels + c, load(results, t * LANES))


@kernel
def read_gradients(grad, origin, path, c, steps, gs, grad_dts, grad_dt_xs):
    """Sixteen channels of the gradient of y at each step of a path; those of Δ and Δu begin at zero."""
    for t in range(steps):
        store(gs, t * LANES, load(grad, (origin + path[t]) * grad.shape[3] + c))
        store(grad_dts, t * LANES, spread(ZERO))
        store(grad_dt_xs, t * LANES, spread(ZERO))


@kernel
def write_gradients(origin, path, c, steps, read, skip, grad_u, grad_delta, partial, at):
    """Sixteen channels of the gradients of u and Δ at each step of a path; adds those of D and bias to `partial`, from `at`.

    read: u, Δ, the derivative of Δ, and the gradients of y, Δ and Δu at each step.
    """
    xs, dts, slopes, gs, grad_dts, grad_dt_xs = read
    grad_D, grad_bias = spread(ZERO), spread(ZERO)
    for t in range(steps):
        here, place = t * LANES, (origin + path[t]) * grad_u.shape[3] + c
        g, x, dt, grad_dt_x = load(gs, here), load(xs, here), load(dts, here), load(grad_dt_xs, here)
        grad_raw = (load(grad_dts, here) * LN2 + grad_dt_x * x) * load(slopes, here)
        store(grad_u, place, grad_dt_x * dt + skip * g)
        store(grad_delta, place, grad_raw)
        grad_D = grad_D + g * x
        grad_bias = grad_bias + grad_raw
    store(partial, at, load(partial, at) + grad_D)
    store(partial, at + LANES, load(partial, at + LANES) + grad_bias)


@kernel
def scan_backward(first, last, grad, u, delta, A, B, C, D, bias, paths, softplus, grad_u, grad_delta, grad_B, grad_C, partial):
    """Tasks are directions × groups of sequences; a group sums into its own rows of `partial`.

    partial (groups, K, channels/16, n + 2, 16) takes each group's gradients of A, D and bias. Decays and states of one
    block over a sequence are recomputed into scratch (25 kB for 49 tokens), then its tokens are walked backwards.
    """
    batch, directions, tokens, channels = u.shape
    _, windows, length = paths.shape
    n_state = B.shape[3]
    groups = partial.shape[0]
    line, block = length * LANES, length * BLOCK
    xs, dts, dt_xs, slopes, gs = scratch(line), scratch(line), scratch(line), scratch(line), scratch(line)
    grad_dts, grad_dt_xs, decays, carries = scratch(line), scratch(line), scratch(block), scratch(block)

    for task in range(first, last):
        k, group = task // groups, task % groups
        partial[group, k] = 0
        for sequence in range(group * batch * windows // groups, (group + 1) * batch * windows // groups):
            b, w = sequence // windows, sequence % windows
            origin, path = (b * directions + k) * tokens, paths[k, w]
            for t in range(path_length(path)):
                grad_B[b, k, path[t]] = 0
                grad_C[b, k, path[t]] = 0
            for c in range(0, channels, LANES):
                shift, skip = load(bias, k * channels + c), load(D, k * channels + c)
                sums = ((group * directions + k) * channels + c) * (n_state + 2)
                steps = read_steps(u, delta, origin, path, c, shift, softplus, xs, dts, dt_xs, slopes)
                read_gradients(grad, origin, path, c, steps, gs, grad_dts, grad_dt_xs)
                for n in range(0, n_state, STATES):
                    rates = load_block(A, (k * channels + c) * n_state + n * LANES)
                    h = zeros()
                    for t in range(steps):
                        at, state = t * LANES, (origin + path[t]) * n_state + n
                        ahead = (origin + path[t]) * channels + c + LANES
                        prefetch(u, ahead)
                        prefetch(delta, ahead)
                        prefetch(grad, ahead)
                        decay = exp2(load_over_states(dts, at) * rates)
                        carry = decay * h
                        h = carry + load_over_states(dt_xs, at) * load_over_channels(B, state)
                        store(decays, t * BLOCK, decay)
                        store(carries, t * BLOCK, carry)
                        add_channel_sums(grad_C, state, load_over_states(gs, at) * h)

                    grad_carry, grad_rates = zeros(), zeros()
                    for t in range(steps - 1, -1, -1):
                        at, state = t * LANES, (origin + path[t]) * n_state + n
                        grad_h = grad_carry + load_over_states(gs, at) * load_over_channels(C, state)
                        add_channel_sums(grad_B, state, grad_h * load_over_states(dt_xs, at))
                        grad_dt_x = sum_states(grad_h * load_over_channels(B, state))
                        store(grad_dt_xs, at, load(grad_dt_xs, at) + grad_dt_x)
                        grad_exponent = grad_h * load_block(carries, t * BLOCK)
                        store(grad_dts, at, load(grad_dts, at) + sum_states(grad_exponent * rates))
                        grad_rates = grad_rates + grad_exponent * load_over_states(dts, at)
                        grad_carry = grad_h * load_block(decays, t * BLOCK)
                    at = sums + n * LANES
                    store(partial, at, load_block(partial, at) + grad_rates)
                read = xs, dts, slopes, gs, grad_dts, grad_dt_xs
                write_gradients(origin, path, c, steps, read, skip, grad_u, grad_delta, partial, sums + n_state * LANES)


# ---------------------------------------------------------------------------------------------- convolution


@kernel
def read_path(x, origin, path, c, line):
    """Copy 16 channels of the tokens of a path into scratch, with a zero before the first and after the last."""
    steps = path_length(path)
    store(line, 0, spread(ZERO))
    for t in range(steps):
        store(line, (t + 1) * LANES, load(x, (origin + path[t]) * x.shape[3] + c))
    store(line, (steps + 1) * LANES, spread(ZERO))
    return steps


@kernel
def conv_forward(first, last, x, weight, paths, y):
    """Tasks are single sequences: directions × batch × windows, the last fastest."""
    batch, directions, tokens, channels = y.shape
    _, windows, length = paths.shape
    line = scratch((length + 2) * LANES)

    for task in range(first, last):
        k, b, w = task // (batch * windows), task // windows % batch, task % windows
        source = (b * x.shape[1] + min(k, x.shape[1] - 1)) * tokens
        target = (b * directions + k) * tokens
        for c in range(0, channels, LANES):
            taps = k * 3 * channels + c
            before, here, after = load(weight, taps), load(weight, taps + channels), load(weight, taps + 2 * channels)
            for t in range(read_path(x, source, paths[k, w], c, line)):
                at = t * LANES
                p = before * load(line, at) + here * load(line, at + LANES) + after * load(line, at + 2 * LANES)
                _, slope = softplus_and_slope(p)
                store(y, (target + paths[k, w, t]) * channels + c, p * slope)


@kernel
def conv_backward(first, last, grad, x, weight, paths, grad_x, partial):
    """Tasks are groups of batch items; a group sums into its own rows of `partial` (groups, K, 3, channels).

    Directions that share x add to its gradient in their order.
    """
    batch, directions, tokens, channels = grad.shape
    _, windows, length = paths.shape
    groups = partial.shape[0]
    zero = spread(ZERO)
    line, grad_line = scratch((length + 2) * LANES), scratch((length + 2) * LANES)
    store(grad_line, 0, zero)

    for group in range(first, last):
        partial[group] = 0
        for b in range(group * batch // groups, (group + 1) * batch // groups):
            grad_x[b] = 0
            for k in range(directions):
                source = (b * x.shape[1] + min(k, x.shape[1] - 1)) * tokens
                target = (b * directions + k) * tokens
                for w in range(windows):
                    for c in range(0, channels, LANES):
                        taps = k * 3 * channels + c
                        before, here = load(weight, taps), load(weight, taps + channels)
                        after = load(weight, taps + 2 * channels)
                        grad_before, grad_here, grad_after = zero, zero, zero

                        steps = read_path(x, source, paths[k, w], c, line)
                        for t in range(steps):
                            at = t * LANES
                            previous, this, following = (
                                load(line, at),
                                load(line, at + LANES),
                                load(line, at + 2 * LANES),
                            )
                            p = before * previous + here * this + after * following
                            _, s = softplus_and_slope(p)
                            g = load(grad, (target + paths[k, w, t]) * channels + c) * (s + p * s * (ONE - s))
                            store(grad_line, at + LANES, g)
                            grad_before = grad_before + g * previous
                            grad_here = grad_here + g * this
                            grad_after = grad_after + g * following
                        store(grad_line, (steps + 1) * LANES, zero)
                        for t in range(steps):
                            at, place = t * LANES, (source + paths[k, w, t]) * channels + c
                            g = before * load(grad_line, at + 2 * LANES) + here * load(grad_line, at + LANES)
                            store(grad_x, place, load(grad_x, place) + g + after * load(grad_line, at))

                        at = (group * directions + k) * 3 * channels + c
                        store(partial, at, load(partial, at) + grad_before)
                        store(partial, at + channels, load(partial, at + channels) + grad_here)
                        store(partial, at + 2 * channels, load(partial, at + 2 * channels) + grad_after)
