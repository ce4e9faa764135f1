"""What all formats share: stored types, arrays, the questions every reader answers, recognition."""
