"""A search over several processes: rank 0 alone searches, and all of them train what it asks for.

Started by ``torchrun`` or ``srun``, every rank builds the same experiment from the same recipe. Rank 0 (`leader`) has
the agents, the journal and everything else that is written; a `follower` waits for what to evaluate. Each joint
evaluation (`joint_tasks`) has a process group of its own, which ends with it, so one that failed leaves nothing broken.

A rank that fails says so before it leaves the group, for only then do the others notice: the first reason told is the
true one. Then all of them leave, and the search goes on with the next architecture.

``batch_size`` is what each rank takes, as everywhere in Lightning: ``n`` ranks train as one process does with ``n``
times that.
"""
