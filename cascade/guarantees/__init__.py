"""What a bundle guarantees about its errors: risk control, conformal sets, budget and drift."""
