"""The policy pack: ``pulumi preview --policy-pack policies``."""

from pulumi_policy import PolicyPack

from policies.pack import NAME, policies_of
from policies.rules import RULES

PolicyPack(name=NAME, policies=list(policies_of(RULES)))
