"""Assembles a jigsaw puzzle of square blocks, which may be turned, from the costs of all joints.

A tree of the most certain joints connects the blocks, as in Gallagher ("Jigsaw puzzles with pieces of unknown
orientation", CVPR 2012). Joints that leave the frame are rejected, and holes are filled greedily. Then the largest
segment of blocks that agree with each other is kept and the rest is placed again, as long as the cost falls (Pomeranz,
Shemesh and Ben-Shahar, CVPR 2011).
"""

import dataclasses

import numpy as np
from scipy.optimize import linear_sum_assignment
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

# Offsets (row, column) to the right, down, left and up; the opposite of direction d is (d + 2) % 4.
OFFSETS = np.array([(0, 1), (1, 0), (0, -1), (-1, 0)])
# Number of joints of each edge that are tried when joining, and of rounds that keep only the largest segment.
_CANDIDATES = 24
_ROUNDS = 10


@dataclasses.dataclass(frozen=True, eq=False)
class Turns:
    """The group of turns that a block may have undergone, such as rotations; turn 0 is the identity.

    compose: int [turns, turns]; compose[a, b] is turn b followed by turn a.
    inverse: int [turns], the inverse of each turn.
    offsets: int [turns, 2, 2], the matrices by which turns act on (row, column) offsets.
    """

    compose: np.ndarray
    inverse: np.ndarray
    offsets: np.ndarray

    @property
    def directions(self) -> np.ndarray:
        """The direction to which each turn takes each direction of `OFFSETS`: int [turns, 4]."""
        moved = np.einsum("tij,dj->tdi", self.offsets, OFFSETS)
        return np.argmax((moved[:, :, None] == OFFSETS).all(-1), axis=-1)


UNTURNED = Turns(np.zeros((1, 1), np.int64), np.zeros(1, np.int64), np.eye(2, dtype=np.int64)[None])


def solve(costs: np.ndarray, turns: Turns, rows: int, columns: int) -> tuple[np.ndarray, np.ndarray]:
    """Finds places and turns of all blocks from the costs of joints.

    Args:
      costs: float32 [n, 4, n, turns], with n = rows * columns: costs[i, d, j, t] is the cost of block j, after turn t,
        in direction d from block i, unturned. It is infinite for i = j.
      turns: the group of turns.
      rows, columns: size of the frame in blocks.

    Returns:
      The block in each place and its turn, both int64 [rows * columns] in row-major order; up to one turn of the whole.
    """
    if len(costs) == 1:
        return np.zeros(1, np.int64), np.zeros(1, np.int64)
    board = _Board(costs, turns, rows, columns)
    best = board.shift(*board.improve(*board.fill(board.join())))
    lowest = board.total(*best)
    for _ in range(_ROUNDS):
        candidate = board.shift(*board.improve(*board.fill(board.segment(*best))))
        total = board.total(*candidate)
        if total >= lowest * (1 - 1e-6):
            break
        best, lowest = candidate, total
    return best


@dataclasses.dataclass(eq=False)
class _Component:
    """Blocks that are joined: their numbers int [m], relative places int [m, 2], and turns int [m]."""

    blocks: np.ndarray
    places: np.ndarray
    turns: np.ndarray


class _Board:
    def __init__(self, costs: np.ndarray, turns: Turns, rows: int, columns: int):
        self.costs, self.turns, self.frame = costs, turns, (rows, columns)
        self.count, self.directions = len(costs), turns.directions
        # If turns exchange rows and columns, a component may lie on its side while blocks are being joined.
        self.sideways = bool((turns.offsets[:, 0, 0] == 0).any())

    def beside(self, block: int, turn: int, direction: int) -> np.ndarray:
        """Returns the costs of each block after each turn, in a direction from a turned block: float32 [n, turns]."""
        back = self.turns.inverse[turn]
        return self.costs[block, self.directions[back, direction]][:, self.turns.compose[back]]

    def sure_joints(self) -> tuple[np.ndarray, ...]:
        """Returns the best joints of all edges: blocks, directions, other blocks, their turns, and ratios.

        The ratio is the cost of the joint, divided by the lowest cost of any other joint of the two edges. The most
        certain joints, with the smallest ratios, come first.
        """
        count, variants = self.count, len(self.turns.inverse)
        flat = self.costs.reshape(count * 4, -1)
        kept = min(max(_CANDIDATES, 2), flat.shape[1])
        near = np.argpartition(flat, kept - 1, axis=1)[:, :kept] if kept < flat.shape[1] else None
        near = np.argsort(flat, axis=1) if near is None else near
        values = np.take_along_axis(flat, near, axis=1)
        lowest = np.sort(values, axis=1)
        # About the cost between two flat edges, so that a joint of flat edges does not count as certain.
        floor = 1e-3 * np.median(lowest[:, 0]) + 1e-6
        block, direction = np.divmod(np.arange(count * 4), 4)
        block, direction = (np.broadcast_to(part[:, None], near.shape) for part in (block, direction))
        other, turn = np.divmod(near, variants)
        back = self.turns.inverse[turn]
        facing = other * 4 + self.directions[back, (direction + 2) % 4]
        alternative = np.where(values > lowest[:, :1], lowest[:, :1], lowest[:, 1:2])
        there = np.where(values > lowest[facing, 0], lowest[facing, 0], lowest[facing, 1])
        ratio = (values + floor) / (np.minimum(alternative, there) + floor)
        usable = np.isfinite(ratio)
        order = np.lexsort((values[usable], ratio[usable]))
        return tuple(part[usable][order] for part in (block, direction, other, turn, ratio))

    def join(self) -> _Component:
        """Returns the largest component of a spanning forest of the most certain joints that fit in the frame."""
        component = [
            _Component(np.array([block]), np.zeros((1, 2), np.int64), np.zeros(1, np.int64))
            for block in range(self.count)
        ]
        within = np.zeros(self.count, np.int64)
        for block, direction, other, turn, _ in zip(*(part.tolist() for part in self.sure_joints()), strict=True):
            first, second = component[block], component[other]
            if first is second:
                continue
            here, there = int(within[block]), int(within[other])
            joined = self._joined(first, here, direction, second, there, turn)
            if joined is None:
                continue
            within[second.blocks] += len(first.blocks)
            for member in joined.blocks.tolist():
                component[member] = joined
            if len(joined.blocks) == self.count:
                break
        return max(component, key=lambda each: len(each.blocks))

    def _joined(
        self, first: _Component, here: int, direction: int, second: _Component, there: int, turn: int
    ) -> _Component | None:
        """Joins two components, the first one unturned; returns None if they overlap or do not fit in the frame."""
        compose, inverse, offsets = self.turns.compose, self.turns.inverse, self.turns.offsets
        wanted = compose[first.turns[here], turn]
        moved = compose[wanted, inverse[second.turns[there]]]
        target = first.places[here] + offsets[first.turns[here]] @ OFFSETS[direction]
        places = second.places @ offsets[moved].T
        places = np.concatenate([first.places, places + target - places[there]])
        places -= places.min(axis=0)
        height, width = places.max(axis=0) + 1
        if not self._fits(height, width) or len(np.unique(places[:, 0] * width + places[:, 1])) < len(places):
            return None
        turned = np.concatenate([first.turns, compose[moved, second.turns]])
        return _Component(np.concatenate([first.blocks, second.blocks]), places, turned)

    def _fits(self, height: int, width: int) -> bool:
        rows, columns = self.frame
        return (height <= rows and width <= columns) or (self.sideways and height <= columns and width <= rows)

    def fill(self, component: _Component) -> tuple[np.ndarray, np.ndarray]:
        """Places all other blocks around a component, most known neighbors first, then lowest cost first."""
        rows, columns = self.frame
        height, width = component.places.max(axis=0) + 1
        if height > rows or width > columns:
            turn = int(np.flatnonzero(self.turns.offsets[:, 0, 0] == 0)[0])
            places = component.places @ self.turns.offsets[turn].T
            turned = self.turns.compose[turn, component.turns]
            component = _Component(component.blocks, places - places.min(axis=0), turned)
            height, width = width, height
        # Room for every position that the component may take in the frame.
        span = (2 * rows - height, 2 * columns - width)
        start = np.array((rows - height, columns - width))
        low, high = start, start + np.array((height, width))
        block_at, turn_at = np.full(span, -1), np.zeros(span, np.int64)
        neighbors = np.zeros(span, np.int64)
        summed: dict[tuple[int, int], np.ndarray] = {}
        free = np.ones(self.count, bool)

        def put(block: int, turn: int, row: int, column: int) -> None:
            block_at[row, column], turn_at[row, column], free[block] = block, turn, False
            summed.pop((row, column), None)
            for direction, (down, right) in enumerate(OFFSETS.tolist()):
                place = row + down, column + right
                if 0 <= place[0] < span[0] and 0 <= place[1] < span[1] and block_at[place] < 0:
                    neighbors[place] += 1
                    beside = self.beside(block, turn, direction)
                    summed[place] = summed[place] + beside if place in summed else beside

        for block, turn, place in zip(component.blocks, component.turns, component.places + start, strict=True):
            put(int(block), int(turn), *place.tolist())
        while free.any():
            inside = {
                place: costs
                for place, costs in summed.items()
                if (np.maximum(high, np.array(place) + 1) - np.minimum(low, place) <= self.frame).all()
            }
            most = max(neighbors[place] for place in inside)
            choices = [place for place in inside if neighbors[place] == most]
            values = np.stack([np.where(free, inside[place].min(axis=1), np.inf) for place in choices])
            chosen, block = np.unravel_index(np.argmin(values), values.shape)
            place = choices[chosen]
            low, high = np.minimum(low, place), np.maximum(high, np.array(place) + 1)
            put(int(block), int(np.argmin(inside[place][block])), *place)
        frame = np.s_[low[0] : low[0] + rows, low[1] : low[1] + columns]
        return block_at[frame].ravel(), turn_at[frame].ravel()

    def fit(self, order: np.ndarray, turned: np.ndarray, place: int) -> np.ndarray:
        """Returns the cost of each block after each turn, beside the neighbors of a place: float32 [n, turns]."""
        rows, columns = self.frame
        cost = np.zeros((self.count, len(self.turns.inverse)), np.float32)
        for direction, offset in enumerate(OFFSETS.tolist()):
            row, column = place // columns + offset[0], place % columns + offset[1]
            if 0 <= row < rows and 0 <= column < columns:
                neighbor = row * columns + column
                cost += self.beside(int(order[neighbor]), int(turned[neighbor]), (direction + 2) % 4)
        return cost

    def joints(self, order: np.ndarray, turned: np.ndarray) -> list[tuple[np.ndarray, np.ndarray, int, np.ndarray]]:
        """Returns, for each direction (right, down): places, their neighbors, the direction, and the joints' costs."""
        places = np.arange(self.count).reshape(self.frame)
        joints = []
        for direction, (here, there) in enumerate(((places[:, :-1], places[:, 1:]), (places[:-1], places[1:]))):
            here, there = here.ravel(), there.ravel()
            back = self.turns.inverse[turned[here]]
            relative = self.turns.compose[back, turned[there]]
            costs = self.costs[order[here], self.directions[back, direction], order[there], relative]
            joints.append((here, there, direction, costs))
        return joints

    def total(self, order: np.ndarray, turned: np.ndarray) -> float:
        """Returns the total cost of all joints."""
        return float(sum(costs.sum(dtype=np.float64) for _, _, _, costs in self.joints(order, turned)))

    def improve(self, order: np.ndarray, turned: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Rearranges the blocks of places that do not touch each other optimally, until nothing changes."""
        rows, columns = self.frame
        row, column = np.divmod(np.arange(rows * columns), columns)
        # Chessboard squares of one color do not touch. Knight's moves connect squares of both colors.
        colors = [(row + column) % 2 == 0, (row + column) % 2 == 1]
        colors += [(row + 2 * column) % 5 == part for part in range(5)]
        colors = [color for color in colors if color.any()]
        order, turned = order.copy(), turned.copy()
        unchanged = 0
        for step in range(8 * len(colors)):
            places = np.flatnonzero(colors[step % len(colors)])
            blocks = order[places]
            cost = np.stack([self.fit(order, turned, place)[blocks] for place in places.tolist()])
            lowest, chosen = cost.min(axis=2), cost.argmin(axis=2)
            # Blocks keep their places in case of a tie.
            finite = np.where(np.isfinite(lowest), lowest, 1e9)
            finite[np.diag_indices(len(places))] *= 1 - 1e-6
            rows_taken, taken = linear_sum_assignment(finite)
            unchanged = unchanged + 1 if (taken == rows_taken).all() else 0
            order[places], turned[places] = blocks[taken], chosen[rows_taken, taken]
            if unchanged == len(colors):
                break
        return order, turned

    def shift(self, order: np.ndarray, turned: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Shifts rows, and then columns, cyclically by the number of steps with the lowest cost."""
        for axis, length in enumerate(self.frame):
            moved = [
                tuple(np.roll(part.reshape(self.frame), step, axis).ravel() for part in (order, turned))
                for step in range(length)
            ]
            order, turned = min(moved, key=lambda arrangement: self.total(*arrangement))
        return order, turned

    def segment(self, order: np.ndarray, turned: np.ndarray) -> _Component:
        """Returns the largest segment of an arrangement in which neighbors are each other's best match."""
        best = self.costs.min(axis=(2, 3))
        pairs = []
        for here, there, direction, costs in self.joints(order, turned):
            edge = self.directions[self.turns.inverse[turned[here]], direction]
            facing = self.directions[self.turns.inverse[turned[there]], direction + 2]
            agreed = costs <= np.maximum(best[order[here], edge], best[order[there], facing])
            pairs.append(np.stack([here[agreed], there[agreed]]))
        pairs = np.concatenate(pairs, axis=1)
        graph = coo_array((np.ones(pairs.shape[1]), (pairs[0], pairs[1])), shape=(self.count, self.count))
        label = connected_components(graph, directed=False)[1]
        kept = np.flatnonzero(label == np.argmax(np.bincount(label)))
        where = np.stack(np.divmod(kept, self.frame[1]), axis=1)
        return _Component(order[kept], where - where.min(axis=0), turned[kept])
