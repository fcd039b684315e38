"""Kinds of data: one file is one kind, as `hvd_xai.views.kind.Kind` describes it."""
