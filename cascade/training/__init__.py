"""Trains, calibrates and exports bundles.

    recipe    a TOML file -> a validated `Recipe`
    augment   one photo -> a random view of it
    backbone  a timm model, split into a frozen and a trained part
    views     frozen part of many views, cached on disk
    fit       the trained part -> weights, checkpointed after every epoch
    export    weights -> an ONNX image stage
    graphs    fitted numbers -> router.onnx and arbiter.onnx
    calibrate outputs of the exported graphs -> fitted numbers
    pack      everything -> a bundle
    measure   a bundle and the split `test` -> the figures in its manifest
    run       `cascade train`, from the first to the last of these

Needs the extra `train`. The run time never imports anything from here.
"""
