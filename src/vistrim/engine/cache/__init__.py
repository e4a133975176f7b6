"""Cache layers that can forget tokens, with room behind them, and the swap that puts them in."""
