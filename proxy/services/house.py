"""What every service works with, handed in once by the wiring."""

import asyncio
from collections import Counter
from collections.abc import Callable, Mapping, Sequence

import msgspec

from proxy.core.account import Account
from proxy.core.clock import Clock
from proxy.core.ids import NewId, Secrets
from proxy.core.offer import PriceOverride
from proxy.outside.assets import Fetcher
from proxy.outside.base import Disk, Storage
from proxy.outside.transport import Transport
from proxy.policy.overrides import lay_over
from proxy.policy.rules import Rules
from proxy.providers.base import Adapter, Polls
from proxy.services.pulse import Pulse
from proxy.services.retrying import Retrying
from proxy.services.waiting import Waiting
from proxy.store.base import Store
from proxy.telemetry.metrics import Metrics


class LastReload(msgspec.Struct, frozen=True, kw_only=True):
    """When the rules were last read anew, and what came of it."""

    at: int
    error: str | None
    """One line; None: they took effect."""


class House:
    """The doors, the rules in force, and where time, ids and chance come from."""

    def __init__(
        self,
        *,
        store: Store,
        rules: Rules,
        overrides: Sequence[PriceOverride] = (),
        adapters: Mapping[str, Adapter],
        transport: Transport,
        fetcher: Fetcher,
        storage: Storage,
        metrics: Metrics,
        secrets: Secrets,
        clock: Clock,
        new_id: NewId,
        chance: Callable[[], float],
        public_url: str | None,
        sandbox: bool,
        clean: Callable[[str], str],
        database_disk: Disk | None = None,
        restored_at: int = 0,
    ) -> None:
        self.store = store
        self.written = rules
        """As the file says; replaced with what is in force."""
        self.overrides = tuple(overrides)
        """As the database last said."""
        self.rules = lay_over(rules, self.overrides)
        """In force. Replaced as a whole by a reload or a new price, and only between two steps of the event loop."""
        self.repricing = asyncio.Lock()
        """Held while the overrides are read, so that what was read later counts."""
        self.rules_since = clock()
        self.last_reload: LastReload | None = None
        self.adapters = adapters
        self.pollers = {name: adapter for name, adapter in adapters.items() if isinstance(adapter, Polls)}
        """Found once: Python takes its time to tell, and every poll would ask."""
        self.transport = transport
        self.fetcher = fetcher
        self.storage = storage
        self.disks: dict[str, Disk] = {"files": storage}
        """By the metrics' names of the stores."""
        if database_disk is not None:
            self.disks["database"] = database_disk
        self.unseen: Counter[str] = Counter()
        """How often in a row each of `disks` could not be asked."""
        self.full: set[str] = set()
        """Disks that are nearly full or away, and `line` where too many videos wait: nothing new is accepted."""
        self.metrics = metrics
        self.secrets = secrets
        self.clock = clock
        self.new_id = new_id
        self.chance = chance
        """A number in [0, 1), for jitter and weighted choice."""
        self.public_url = public_url
        """Where sellers may call back; None: they are polled only."""
        self.sandbox = sandbox
        self.clean = clean
        """A seller's text without keys and signed addresses, short enough to be shown."""
        self.restored_at = restored_at
        """What was accepted before then may have bought more than the database knows (restored.py)."""
        self.draining = False
        """Set once the end was asked for: nothing new is accepted or begun."""
        self.pulse = Pulse(store, clock)
        """How sellers did lately."""
        self.retrying = Retrying(clock)
        self.due = asyncio.Event()
        """A hint that something became due just now in this process."""
        self.waiting = Waiting(store)
        self.pace: dict[str, int] = {}
        """Provider to the time before which it asked not to be polled."""

    def drain(self) -> None:
        """Accepts nothing new from now on, and holds no answer any longer."""
        self.draining = True
        self.waiting.close()

    def desk(self, provider: str) -> tuple[Account, Adapter] | None:
        """The account and its wire; None where the rules no longer name it or its key is gone."""
        account = self.rules.accounts.get(provider)
        if account is None or account.api_key is None or account.adapter not in self.adapters:
            return None
        return account, self.adapters[account.adapter]

    def poller(self, provider: str) -> tuple[Account, Polls] | None:
        """The same where orders can be asked about."""
        desk = self.desk(provider)
        adapter = None if desk is None else self.pollers.get(desk[0].adapter)
        return None if desk is None or adapter is None else (desk[0], adapter)
