"""How the shipped models were made; no part of the installed package."""
