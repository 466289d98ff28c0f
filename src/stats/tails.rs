//! Tails and quantiles of the distributions that tests are read from.

use statrs::distribution::{ChiSquared, ContinuousCDF, StudentsT};

/// P(T >= t) for Student's t with so many degrees of freedom, at least 1. NaN for a t that is none.
pub fn student_upper_tail(t: f64, freedom: u32) -> f64 {
    StudentsT::new(0.0, 1.0, f64::from(freedom)).ok().filter(|_| !t.is_nan()).map_or(f64::NAN, |student| student.sf(t))
}

/// The point below which Student's t is with probability `p`.
pub fn student_quantile(p: f64, freedom: u32) -> f64 {
    StudentsT::new(0.0, 1.0, f64::from(freedom)).map_or(f64::NAN, |student| student.inverse_cdf(p))
}

/// The point below which chi-squared is with probability `p`.
pub fn chi_squared_quantile(p: f64, freedom: u32) -> f64 {
    ChiSquared::new(f64::from(freedom)).map_or(f64::NAN, |chi_squared| chi_squared.inverse_cdf(p))
}

/// P(Z >= z) of a standard normal Z, to about 1e-13 relative, where that of statrs is good to 4e-11: the series of Marsaglia (2004) near
/// the centre, Laplace's continued fraction in the tails.
pub fn normal_upper_tail(z: f64) -> f64 {
    if z.is_nan() {
        return f64::NAN;
    }
    let density = (-0.5 * z * z).exp() / std::f64::consts::TAU.sqrt();
    if z.abs() < 3.0 {
        let (mut sum, mut term, mut odd) = (z, z, 1.0);
        while term.abs() > sum.abs() * f64::EPSILON {
            odd += 2.0;
            term *= z * z / odd;
            sum += term;
        }
        return 0.5 - density * sum;
    }
    let mut fraction = z.abs();
    for k in (1..=120).rev() {
        fraction = z.abs() + f64::from(k) / fraction;
    }
    let tail = density / fraction;
    if z > 0.0 { tail } else { 1.0 - tail }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// scipy.stats.norm.sf
    #[test]
    fn normal_tails_are_those_of_scipy() {
        let table = [
            (-3.0, 0.998_650_101_968_369_9),
            (0.5, 0.308_537_538_725_986_9),
            (2.0, 0.022_750_131_948_179_195),
            (5.0, 2.866_515_718_791_933e-7),
            (20.0, 2.753_624_118_606_155_6e-89),
        ];
        for (z, p) in table {
            assert!((normal_upper_tail(z) / p - 1.0).abs() < 1e-12, "{z}");
        }
    }

    /// scipy.stats.t.sf and .ppf
    #[test]
    fn students_t_is_that_of_scipy() {
        let table = [(2.0, 3, 0.069_662_984_279_421_52), (40.0, 27, 7.149_375_651_160_739e-26), (-1.0, 5, 0.818_391_266_175_438_6)];
        for (t, freedom, p) in table {
            assert!((student_upper_tail(t, freedom) / p - 1.0).abs() < 1e-11, "{t}");
        }
        for (freedom, t) in [(1, 12.706_204_736_174_694), (2, 4.302_652_729_749_462), (10, 2.228_138_851_986_274)] {
            assert!((student_quantile(0.975, freedom) / t - 1.0).abs() < 1e-12, "{freedom}");
        }
        assert!(student_upper_tail(f64::NAN, 3).is_nan() && student_upper_tail(f64::INFINITY, 3) == 0.0);
    }

    /// scipy.stats.chi2.ppf
    #[test]
    fn quantiles_of_chi_squared_are_those_of_scipy() {
        let table = [
            (1, 0.000_982_069_117_175_255_5, 5.023_886_187_314_888),
            (2, 0.050_635_615_968_579_75, 7.377_758_908_227_871),
            (3, 0.215_795_282_623_897_85, 9.348_403_604_496_148),
            (4, 0.484_418_557_087_929_9, 11.143_286_781_877_796),
            (7, 1.689_869_180_677_355, 16.012_764_274_629_326),
            (10, 3.246_972_780_236_841_3, 20.483_177_350_807_388),
        ];
        for (freedom, lower, upper) in table {
            assert!((chi_squared_quantile(0.025, freedom) / lower - 1.0).abs() < 1e-9, "{freedom}");
            assert!((chi_squared_quantile(0.975, freedom) / upper - 1.0).abs() < 1e-9, "{freedom}");
        }
    }
}
