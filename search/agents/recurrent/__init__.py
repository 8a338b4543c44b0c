"""Agents whose policy is a recurrent network: one softmax a decision, each of which sees the decisions before it."""
