//! Calibration of scores. Applications bring their thresholds from OpenAI's hosted service, so a score
//! must mean here what it meant there, whichever model made the embeddings.
//!
//! All curves are strictly increasing, so calibration never changes an order. The constants come from
//! the measurements in `docs/decisions/0010-calibrated-scores.md`.

/// Points of a piecewise linear curve, from (0, 0) to (1, 1); both coordinates increase.
type Curve = &'static [(f64, f64)];

/// The identity, for the installed model and unknown ones. Question and answer have a cosine of 0.4 to
/// 0.9, unrelated texts less than 0.2.
const WIDE: Curve = &[(0.0, 0.0), (1.0, 1.0)];

/// OpenAI's text-embedding-3: question and answer have 0.35 to 0.6, unrelated texts about 0.1.
const LOW: Curve = &[(0.0, 0.0), (0.1, 0.05), (0.6, 0.75), (1.0, 1.0)];

/// Models trained with a low temperature: unrelated texts have at least 0.7, question and answer at
/// least 0.8.
const NARROW: Curve = &[(0.0, 0.0), (0.75, 0.1), (0.9, 0.75), (1.0, 1.0)];

/// Model families, by a part of the model's name.
const FAMILIES: [(&str, Curve); 3] = [
    ("text-embedding-3", LOW),
    ("text-embedding-ada-002", NARROW),
    ("e5-", NARROW),
];

/// From the weighted mean of similarity and lexical score to the hosted service's scale. The mean is
/// low because a chunk with every term of a query once has a lexical score of about 0.45.
const SCORE: Curve = &[
    (0.0, 0.0),
    (0.15, 0.15),
    (0.39, 0.67),
    (0.46, 0.75),
    (0.6, 0.87),
    (1.0, 1.0),
];

/// Maps the cosines of one model to the scale of the installed one.
#[derive(Debug, Clone, Copy)]
pub(super) struct CosineScale(Curve);

impl CosineScale {
    pub(super) fn of_model(model: &str) -> Self {
        let model = model.to_lowercase();
        let family = FAMILIES.iter().find(|(part, _)| model.contains(part));
        Self(family.map_or(WIDE, |(_, curve)| curve))
    }

    /// The similarity of two texts, 0 to 1. A negative cosine counts as 0.
    pub(super) fn similarity(self, cosine: f64) -> f64 {
        interpolate(self.0, cosine)
    }
}

pub(super) fn score(mean: f64) -> f64 {
    interpolate(SCORE, mean)
}

fn interpolate(curve: Curve, x: f64) -> f64 {
    let x = x.clamp(0.0, 1.0);
    let segments = curve.iter().zip(curve.iter().skip(1));
    let mut segments = segments.skip_while(|(_, (end, _))| x > *end);
    match segments.next() {
        Some(((x0, y0), (x1, y1))) => (y0 + (x - x0) / (x1 - x0) * (y1 - y0)).min(*y1),
        None => 1.0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MODELS: [&str; 5] = [
        "all-minilm-l6-v2",
        "text-embedding-3-small",
        "text-embedding-ada-002",
        "intfloat/multilingual-e5-large",
        "unknown-model",
    ];

    fn score_of(model: &str, cosine: f64, lexical: f64) -> f64 {
        score((CosineScale::of_model(model).similarity(cosine) + lexical) / 2.0)
    }

    #[test]
    fn calibration_changes_no_order_and_keeps_both_ends() {
        for model in MODELS {
            let scale = CosineScale::of_model(model);
            for curve in [&|x| scale.similarity(x), &score as &dyn Fn(f64) -> f64] {
                assert_eq!(curve(0.0), 0.0, "{model}");
                assert_eq!(curve(1.0), 1.0, "{model}");
                let mut last = -1.0;
                for n in 0..=10_000 {
                    let value = curve(f64::from(n) / 10_000.0);
                    assert!(value > last && value <= 1.0, "{model} at {n}: {value}");
                    last = value;
                }
            }
            assert_eq!(scale.similarity(-0.3), 0.0);
        }
    }

    #[test]
    fn recorded_pairs_have_their_recorded_scores() {
        // The recorded question with each recorded text, embedded by the installed model.
        for (cosine, lexical, recorded) in [(0.613, 0.303, 0.751), (0.551, 0.227, 0.680)] {
            let score = score_of("all-minilm-l6-v2", cosine, lexical);
            assert!((score - recorded).abs() < 0.05, "{score}, not {recorded}");
        }
    }

    #[test]
    fn a_threshold_means_the_same_for_every_model() {
        // Cosines of an answer in its question's words, and of an unrelated text.
        for (model, answer, other) in [
            ("all-minilm-l6-v2", 0.75, 0.18),
            ("text-embedding-3-large", 0.55, 0.12),
            ("openai/text-embedding-3-small", 0.55, 0.2),
            ("text-embedding-ada-002", 0.86, 0.76),
            ("e5-base-v2", 0.88, 0.75),
        ] {
            assert!(score_of(model, answer, 0.455) > 0.6, "{model}");
            assert!(score_of(model, other, 0.0) < 0.2, "{model}");
        }
    }
}
