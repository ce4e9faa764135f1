"""Operations of a halved function that are one kernel together on a GPU, where that changes no answer that counts."""
