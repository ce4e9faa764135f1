"""Packages that compute in f16 but for what has to stay in f32."""
