"""What the network sees: a small CNN that the question tells where to look, and how well each choice fits.

Without this a question and a picture would be two vectors side by side, and their product, "the colour of *that* one",
would be left to a multilayer perceptron that sees each example once.
"""

import torch
from gymnasium.spaces import Dict
from stable_baselines3.common.torch_layers import BaseFeaturesExtractor
from torch import nn

from baselines.adapters import CHOICE_WORDS, QUESTION_WORDS
from baselines.text_encoding import NUMBERS

Tensors = dict[str, torch.Tensor]


class QuestionGuidedCNN(BaseFeaturesExtractor):
    """Features (B, width + 6 + choices) of the observations of `baselines.adapters`, the fit of each choice last.

    Attributes:
        choices: How many choices there are, the last so many features.

    Args:
        observation_space: Of an adapter, pictures with channels first as Stable-Baselines3 hands them over.
        width: Of the hidden layer that joins what was seen and asked.
        channels: Of the map that attention looks at.
        heads: Places that the question can point at together.
    """

    def __init__(self, observation_space: Dict, width: int = 128, channels: int = 32, heads: int = 2) -> None:
        words = observation_space["choices"].shape if "choices" in observation_space.spaces else (0,)
        assert words is not None, "choices are a MultiDiscrete, which has a shape"
        choices = words[0] // CHOICE_WORDS
        super().__init__(observation_space, features_dim=width + 6 + choices)
        self.choices, self.heads = choices, heads
        self.cnn = nn.Sequential(
            nn.Conv2d(3, 16, 5, stride=2, padding=2),
            nn.ReLU(),
            nn.Conv2d(16, channels, 3, stride=2, padding=1),
            nn.ReLU(),
            nn.Conv2d(channels, channels, 3, stride=2, padding=1),
            nn.ReLU(),
        )
        self.embedding = nn.Linear(NUMBERS, channels, bias=False)  # of one-hot words, which is what arrives here
        nn.init.normal_(self.embedding.weight)  # as an nn.Embedding; that of nn.Linear shrinks with the vocabulary
        self.query = nn.Linear(QUESTION_WORDS * channels, heads * channels)
        self.choice = nn.Linear(CHOICE_WORDS * channels, channels)
        self.joined = nn.Sequential(nn.Linear(2 * heads * channels + 2 * heads + 6, width), nn.ReLU())
        self.found = nn.Linear(width, channels)

    def forward(self, observations: Tensors) -> torch.Tensor:
        """Return the features of a batch."""
        place = torch.cat([observations["position"], observations["turns"]], 1)  # (B, 6)
        query = self.query(self._embedded(observations["question"]).flatten(1))
        seen = self._attended(self.cnn(observations["picture"]), query)
        joined = self.joined(torch.cat([seen, query, place], 1))
        features = [joined, place]
        if self.choices:
            told = self._embedded(observations["choices"]).reshape(len(place), self.choices, -1)
            features.append(torch.einsum("bcd,bd->bc", self.choice(told), self.found(joined)))
        return torch.cat(features, 1)

    def _embedded(self, words: torch.Tensor) -> torch.Tensor:
        """(B, words * NUMBERS) of zeros and ones to (B, words, channels)."""
        return self.embedding(words.reshape(len(words), -1, NUMBERS))

    def _attended(self, cells: torch.Tensor, query: torch.Tensor) -> torch.Tensor:
        """Look where the question points: (B, D, h, w) and (B, heads * D) to (B, heads * (D + 2)), what and where."""
        batch, channels, rows, columns = cells.shape
        flat = cells.flatten(2)
        asked = query.reshape(batch, self.heads, channels)
        weights = torch.softmax(asked @ flat / channels**0.5, 2)  # (B, heads, h * w)
        y, x = torch.meshgrid(torch.linspace(-1, 1, rows), torch.linspace(-1, 1, columns), indexing="ij")
        grid = torch.stack([x, y]).flatten(1).to(cells)  # (2, h * w)
        return torch.cat([weights @ flat.transpose(1, 2), weights @ grid.T], 2).flatten(1)
