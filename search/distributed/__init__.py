"""One command over several processes: rank 0 alone does it all, and all of them train what it asks for.

Started by ``torchrun`` or ``srun``, every rank builds the same from the same recipe. Rank 0 (`leader`) has the agents,
the journal and everything else that is written; a `follower` waits for what to do together. That is an evaluation of a
task or a stretch of a supernet's training (`joint_fit`), or the full training of a network
(`search.deploy.joint_training`): a joint call (`joint_calls`). Each has a process group of its own, which ends with it,
so one that failed leaves nothing broken. One process alone never comes here.

A rank that fails says so before it leaves the group, for only then do the others notice: the first reason told is the
true one. Then all of them leave; a search goes on with the next architecture, a training ends and can be gone on with.

In a search ``batch_size`` is what each rank takes, as everywhere in Lightning: ``n`` ranks train as one process does
with ``n`` times that. A supernet's is the joint batch's.
"""
