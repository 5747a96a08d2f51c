# SPDX-License-Identifier: Apache-2.0
"""The study's experiments: what a guest gets of a disk and of a network, measured, kept, told and compared."""
