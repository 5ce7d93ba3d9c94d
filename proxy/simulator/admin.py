"""The sandbox's own door: clock, faults, books, requests, keys, switches. No seller has it."""

from typing import Any

import msgspec
from litestar import Controller, delete, get, post
from litestar.di import NamedDependency
from litestar.exceptions import ValidationException
from litestar.params import FromQuery, JSONBody

from proxy.simulator.desk import key_name
from proxy.simulator.faults import CATALOGUE, Armed, Fault
from proxy.simulator.ledger import Account, row, totals
from proxy.simulator.sandbox import Sandbox
from proxy.simulator.switches import Switches


class ClockOrder(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    factor: float | None = None
    manual: bool | None = None


class Step(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    seconds: float


class KeyOrder(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    key: str
    revoked: bool = True


class ClockState(msgspec.Struct, kw_only=True):
    factor: float
    manual: bool
    now_s: float
    """Sellers' epoch seconds."""


class FaultState(msgspec.Struct, kw_only=True):
    catalogue: list[Fault]
    armed: list[Armed]
    struck: dict[str, dict[str, int]]
    """By seller and fault, how often; those that stay with a job for its life or output stand in the books."""


class Books(msgspec.Struct, kw_only=True):
    jobs: list[dict[str, Any]]
    accounts: list[Account]
    totals: dict[str, int]


class Admin(Controller):
    """Everything below `/admin`."""

    path = "/admin"

    @get("/clock", sync_to_thread=False)
    def clock(self, sandbox: NamedDependency[Sandbox]) -> ClockState:
        clock = sandbox.clock
        return ClockState(factor=clock.factor, manual=clock.manual, now_s=clock.now_s())

    @post("/clock", status_code=200)
    async def set_clock(self, sandbox: NamedDependency[Sandbox], data: JSONBody[ClockOrder]) -> ClockState:
        if data.factor is not None and data.factor <= 0:
            raise ValidationException("factor must be above 0")
        sandbox.clock.set(factor=data.factor, manual=data.manual)
        sandbox.note_facts()
        return ClockState(factor=sandbox.clock.factor, manual=sandbox.clock.manual, now_s=sandbox.clock.now_s())

    @post("/clock/step", status_code=200)
    async def step(self, sandbox: NamedDependency[Sandbox], data: JSONBody[Step]) -> ClockState:
        if data.seconds < 0:
            raise ValidationException("time only goes forward")
        sandbox.clock.step(data.seconds)
        await sandbox.settle()
        sandbox.note_facts()
        return ClockState(factor=sandbox.clock.factor, manual=sandbox.clock.manual, now_s=sandbox.clock.now_s())

    @get("/faults", sync_to_thread=False)
    def faults(self, sandbox: NamedDependency[Sandbox]) -> FaultState:
        return FaultState(catalogue=list(CATALOGUE.values()), armed=sandbox.faults.armed, struck=sandbox.faults.struck)

    @post("/faults", status_code=201, sync_to_thread=False)
    def arm(self, sandbox: NamedDependency[Sandbox], data: JSONBody[Armed]) -> Armed:
        sandbox.faults.arm(data)
        return data

    @delete("/faults", sync_to_thread=False)
    def disarm(self, sandbox: NamedDependency[Sandbox]) -> None:
        sandbox.faults.disarm()

    @get("/books", sync_to_thread=False)
    def books(
        self, sandbox: NamedDependency[Sandbox], seller: FromQuery[str | None] = None, jobs: FromQuery[bool] = True
    ) -> Books:
        sandbox.jobs.run_due()
        rows = [row(job) for job in sandbox.jobs if seller in {None, job.seller}] if jobs else []
        accounts = [account for account in sandbox.ledger.accounts if seller in {None, account.seller}]
        return Books(jobs=rows, accounts=accounts, totals=totals(accounts))

    @delete("/books")
    async def forget(self, sandbox: NamedDependency[Sandbox]) -> None:
        await sandbox.forget()

    @get("/requests", sync_to_thread=False)
    def requests(
        self, sandbox: NamedDependency[Sandbox], seller: FromQuery[str | None] = None, last: FromQuery[int] = 100
    ) -> dict[str, Any]:
        return sandbox.journal.read(seller, last=last)

    @post("/keys", status_code=200, sync_to_thread=False)
    def revoke(self, sandbox: NamedDependency[Sandbox], data: JSONBody[KeyOrder]) -> dict[str, Any]:
        name = key_name(data.key)
        (sandbox.desk.revoked.add if data.revoked else sandbox.desk.revoked.discard)(name)
        sandbox.note_facts()
        return {"key": name, "revoked": data.revoked}

    @get("/switches", sync_to_thread=False)
    def switches(self, sandbox: NamedDependency[Sandbox]) -> Switches:
        return sandbox.switches

    @post("/switches", status_code=200, sync_to_thread=False)
    def throw(self, sandbox: NamedDependency[Sandbox], data: JSONBody[dict[str, Any]]) -> Switches:
        current = msgspec.to_builtins(sandbox.switches)
        try:
            wanted = msgspec.convert({**current, **data}, Switches)
        except msgspec.ValidationError as exc:
            raise ValidationException(str(exc)) from exc
        for name in wanted.__struct_fields__:
            setattr(sandbox.switches, name, getattr(wanted, name))
        sandbox.apply_switches()
        return sandbox.switches
