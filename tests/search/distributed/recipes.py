"""Recipes for several processes."""

SEARCH = """
space: tests.search.distributed.spaces.JointNorms
targets:
  digits:
    class_path: TrainedTask
    init_args:
      data: {class_path: DigitsDataModule, init_args: {resolution: 8, batch_size: 32}}
      epochs: 1
      build: {channels: 4, cells: 1}
      threads: 1
      trainer: {accelerator: cpu, strategy: ddp, limit_train_batches: 6}
agents:
  evolution: {class_path: RegularizedEvolution, init_args: {population: 3, tournament: 2}}
  catch:
    class_path: CATCHer
    init_args:
      settings: {hidden: 16, candidates: 8, initial_networks: 2, policy_updates: 2, evaluator_updates: 3}
meta_training:
  pool:
    class_path: SubtaskPool
    init_args:
      data: {class_path: DigitsDataModule, init_args: {batch_size: 32}}
      classes: [3, 4]
      resolutions: [8]
      examples_per_class: 40
      epochs: 1
      build: {channels: 4, cells: 1}
      threads: 1
      trainer: {accelerator: cpu, strategy: ddp, limit_train_batches: 2}
  agents: [catch]
  epochs: 2
  networks: 2
budget: 4
"""
TROUBLE = """
space: tests.search.distributed.spaces.Troubled
targets:
  digits:
    class_path: TrainedTask
    init_args:
      data: {class_path: DigitsDataModule, init_args: {resolution: 8, batch_size: 32}}
      epochs: 1
      threads: 1
      trainer: {accelerator: cpu, strategy: ddp, limit_train_batches: 3}
agents:
  in_order: tests.search.distributed.spaces.InOrder
budget: 13
"""
STUDY = """
class_path: SupernetStudy
init_args:
  space: tests.search.distributed.spaces.TroubledSupernet
  truth: tests.search.studies.test_supernet_study.ConvolutionsTask
  data:
    class_path: ThreePartsDataModule
    init_args:
      data: {class_path: DigitsDataModule, init_args: {batch_size: 64}}
      evaluation_images: 64
      images: 700
  settings: {epochs: 4}
  build: {channels: 2, cells: 1}
  methods:
    spos:
      sampler: {class_path: UniformSampler, init_args: {population: 3, tournament: 2, budget: 6}}
      found: 2
    landmarks:
      sampler: {class_path: UniformSampler, init_args: {population: 3, tournament: 2, budget: 6}}
      found: 2
      landmarks: {warmup: 1, schedule: constant}
      landmarks_from: {count: 4, iterations: 3, added: 1}
  measured: 4
  measurements: 2
  threads: 1
  trainer: {accelerator: cpu, strategy: ddp}
"""
