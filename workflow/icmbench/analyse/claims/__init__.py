"""Claims of papers decided on measured curves: effects, their intervals and verdicts."""

from icmbench.analyse.claims.table import ClaimTables, claim_tables

__all__ = ["ClaimTables", "claim_tables"]
