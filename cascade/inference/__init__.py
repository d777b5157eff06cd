"""Running a bundle on photos: sessions, the stages in order, routing and arbitration."""
