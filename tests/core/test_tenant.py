"""Rights of a tenant and its keys are closed sets with careful defaults."""

from typing import get_args

from proxy.core.tenant import SCOPES, Scope, Tenant


def test_every_scope_is_listed() -> None:
    assert get_args(Scope) == SCOPES


def test_new_tenant_pays_no_markup_and_has_no_exceptions() -> None:
    tenant = Tenant(id="acme", name="Acme", created_at=0)
    assert (tenant.markup, tenant.allow_filter_off, tenant.require_end_user_id) == ("0", False, False)
