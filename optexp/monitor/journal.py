"""The rows of a watched training, in memory and in files."""

from __future__ import annotations

import math
import time

from optexp.monitor.record import Record
from optexp.monitor.rows import Measurement, Row

READ_SECONDS = 0.5
"""Rows are made no more often than this: several together take a fraction of the time, and nobody waits for them."""


class Journal:
    """Takes measurements as they come and makes rows of them later; writes them into a record where there is one."""

    def __init__(self, record: Record | None) -> None:
        self.record = record
        self.measured: list[Row] = []
        self.validations: list[Row] = []
        self.not_finite: tuple[int, float] | None = None  # step and value of the loss since when none was finite
        self._waiting: list[Measurement] = []
        self._next_reading = 0.0

    def add(self, measurement: Measurement) -> None:
        """Take in a measurement; it becomes a row when it is time to."""
        self._waiting.append(measurement)
        now = time.monotonic()
        if now > self._next_reading and measurement.arrived():
            self.settle()
            self._next_reading = now + READ_SECONDS

    def add_validation(self, row: Row) -> None:
        """Take in what was told of other data."""
        self.settle()
        self.validations.append(row)
        if self.record is not None:
            self.record.log(row)

    def settle(self) -> None:
        """Make rows of all measurements; waits for those that are on their way from a device."""
        waiting, self._waiting = self._waiting, []
        for measurement in waiting:
            row, losses = measurement.read()
            for place, loss in enumerate(losses):
                if math.isfinite(loss):
                    self.not_finite = None
                elif self.not_finite is None:
                    self.not_finite = measurement.first + place, loss
            self.measured.append(row)
            if self.record is not None:
                self.record.log(row)

    def rows(self) -> list[Row]:
        """Return all rows by step; measurements that wait are none yet."""
        return sorted([*self.measured, *self.validations], key=lambda row: row["step"])

    def flush(self) -> None:
        """Make rows of all measurements, and write what waits."""
        self.settle()
        if self.record is not None:
            self.record.flush()
