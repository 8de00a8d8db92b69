"""What the network sees: a small CNN that the question tells where to look, and how well each choice fits.

Without this a question and a picture would be two vectors side by side, and their product, "the colour of *that* one",
would be left to a multilayer perceptron that sees each example once.
"""

from dataclasses import dataclass

import torch
from gymnasium.spaces import Dict
from stable_baselines3.common.torch_layers import BaseFeaturesExtractor
from torch import nn
from torch.nn import functional as F

from baselines.adapters import CHOICE_WORDS, QUESTION_WORDS
from baselines.boxes import LOOK
from baselines.text_encoding import NUMBERS

Tensors = dict[str, torch.Tensor]

GLIMPSE = 28
"""Side, in points, of what is looked at more closely: as much of the picture as a look of the grid, around the place
pointed at."""


@dataclass
class Seen:
    """What the network makes of a batch of observations.

    Attributes:
        pointed: (B, rows, columns), logits of where in the view the thing asked about is.
        joined: (B, width), what was seen there, what was asked, and where one is.
        found: (B, channels), what the right choice should be like.
    """

    pointed: torch.Tensor
    joined: torch.Tensor
    found: torch.Tensor


class QuestionGuidedCNN(BaseFeaturesExtractor):
    """Features (B, width + 6 + grid**2 + choices) of the observations of `baselines.adapters`.

    The last are the fit of each choice, and before them the logarithm of what share of attention each cell of the grid
    holds: the same attention that answers are read with says where to look.

    Attributes:
        choices: How many choices there are.
        looks: How many cells the grid has.

    Args:
        observation_space: Of an adapter, pictures with channels first as Stable-Baselines3 hands them over.
        grid: Cells side by side, and above each other, that can be looked at; 0 for none.
        width: Of the hidden layer that joins what was seen and asked.
        channels: Of the map that attention looks at.
        heads: Places that the question can point at together, the first of which counts for the grid.
    """

    def __init__(
        self, observation_space: Dict, grid: int = 0, width: int = 128, channels: int = 64, heads: int = 2
    ) -> None:
        words = observation_space["choices"].shape if "choices" in observation_space.spaces else (0,)
        assert words is not None, "choices are a MultiDiscrete, which has a shape"
        choices = words[0] // CHOICE_WORDS
        super().__init__(observation_space, features_dim=width + 6 + grid**2 + choices)
        self.choices, self.heads, self.grid, self.looks = choices, heads, grid, grid**2
        self.cnn = nn.Sequential(
            nn.Conv2d(3, 32, 8, stride=4, padding=2),
            nn.ReLU(),
            nn.Conv2d(32, channels, 3, stride=2, padding=1),
            nn.ReLU(),
            nn.Conv2d(channels, channels, 3, padding=1),
            nn.ReLU(),
        )
        for layer in self.cnn:
            if isinstance(layer, nn.Conv2d):  # the default of PyTorch shrinks the signal by six with each layer
                nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")
                assert layer.bias is not None
                nn.init.zeros_(layer.bias)
        self.embedding = nn.Linear(NUMBERS, 32, bias=False)  # of one-hot words, which is what arrives here
        nn.init.normal_(self.embedding.weight)  # as an nn.Embedding; that of nn.Linear shrinks with the vocabulary
        asked = QUESTION_WORDS * 32
        self.key = nn.Conv2d(channels + 2, channels, 1)
        # Linear in the words, so that a colour and a shape never asked about together are pointed at as well.
        self.query = nn.Linear(asked + 5, heads * channels)
        self.asked = nn.Linear(asked, channels)
        self.glimpse = nn.Sequential(
            nn.Conv2d(3, 16, 3, padding=1),
            nn.ReLU(),
            nn.Conv2d(16, 32, 3, stride=2, padding=1),
            nn.ReLU(),
            nn.Flatten(),
            nn.Linear(32 * (GLIMPSE // 2) ** 2, channels),
            nn.ReLU(),
        )
        inputs = heads * (channels + 2) + 2 * channels + 6
        self.joined = nn.Sequential(
            nn.LayerNorm(inputs), nn.Linear(inputs, width), nn.ReLU(), nn.Linear(width, width), nn.ReLU()
        )
        self.choice = nn.Linear(CHOICE_WORDS * 32, channels)
        self.found = nn.Linear(width, channels)

    def forward(self, observations: Tensors) -> torch.Tensor:
        """Return the features of a batch."""
        return self.features(self.see(observations), observations)

    def see(self, observations: Tensors) -> Seen:
        """Look at a batch."""
        words = self._embedded(observations["question"]).flatten(1)
        position = observations["position"]
        picture = 2 * observations["picture"] - 1
        cells = _with_places(self.cnn(picture))  # (B, channels + 2, rows, columns)
        batch, _, rows, columns = cells.shape
        query = self.query(torch.cat([words, position], 1)).reshape(batch, self.heads, -1)
        key = self.key(cells).flatten(2)
        logits = query @ key / key.shape[1] ** 0.5  # (B, heads, rows * columns)
        seen = logits.softmax(2) @ cells.flatten(2).transpose(1, 2)  # (B, heads, channels + 2), places last
        close = self.glimpse(_around(picture, seen[:, 0, -2:].detach()))
        joined = self.joined(torch.cat([seen.flatten(1), close, self.asked(words), position, observations["turns"]], 1))
        return Seen(logits[:, 0].reshape(batch, rows, columns), joined, self.found(joined))

    def told(self, choices: torch.Tensor) -> torch.Tensor:
        """(N, CHOICE_WORDS * NUMBERS) words of choices to (N, channels), what each is like."""
        return self.choice(self._embedded(choices).flatten(1))

    def features(self, seen: Seen, observations: Tensors) -> torch.Tensor:
        """Return the features (B, features_dim) of what was seen."""
        features = [seen.joined, observations["position"], observations["turns"]]
        if self.looks:
            shares = seen.pointed.flatten(1).softmax(1).reshape(seen.pointed.shape)
            pooled = F.adaptive_avg_pool2d(shares.unsqueeze(1), self.grid).flatten(1)
            features.append((pooled / pooled.sum(1, keepdim=True) + 1e-6).log())
        if self.choices:
            told = self.told(observations["choices"].reshape(len(seen.found) * self.choices, -1))
            features.append(torch.einsum("bcd,bd->bc", told.reshape(len(seen.found), self.choices, -1), seen.found))
        return torch.cat(features, 1)

    def _embedded(self, words: torch.Tensor) -> torch.Tensor:
        """(B, words * NUMBERS) of zeros and ones to (B, words, 32)."""
        return self.embedding(words.reshape(len(words), -1, NUMBERS))


def _with_places(cells: torch.Tensor) -> torch.Tensor:
    """(B, D, rows, columns) to (B, D + 2, rows, columns): x and y of each cell's middle, -1 to 1 at the borders."""
    batch, _, rows, columns = cells.shape
    y, x = (torch.arange(1, 2 * side, 2) / side - 1 for side in (rows, columns))
    places = torch.stack(torch.meshgrid(x, y, indexing="xy"))
    return torch.cat([cells, places.to(cells).expand(batch, 2, rows, columns)], 1)


def _around(picture: torch.Tensor, place: torch.Tensor) -> torch.Tensor:
    """Cut (B, 3, GLIMPSE, GLIMPSE) from pictures (B, 3, H, W) around places (B, 2), x and y from -1 to 1."""
    side = torch.linspace(-LOOK, LOOK, GLIMPSE).to(picture)  # a picture is 2 wide here
    offsets = torch.stack(torch.meshgrid(side, side, indexing="xy"), 2)
    return F.grid_sample(picture, place[:, None, None] + offsets, align_corners=False)
