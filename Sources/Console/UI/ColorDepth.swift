/// How many colours the terminal shows.
public enum ColorDepth: Hashable, Sendable, CaseIterable {
    case trueColor, indexed256, ansi16, ansi8, mono
}

/// A colour as a terminal takes it.
public enum TerminalColor: Hashable, Sendable {
    case terminalDefault
    case rgb(RGB)
    /// 0...255, 0...15 or 0...7 by depth.
    case indexed(UInt8)
}

/// A style as a terminal takes it.
public struct ConcreteStyle: Hashable, Sendable {
    public var foreground: TerminalColor
    public var background: TerminalColor
    public var attributes: Attributes
}

extension RGB {
    /// The nearest colour of the terminal's palette, by distance in Oklab. For 256 only the fixed part (16...255) is used, since
    /// people redefine the first sixteen; for 16 and 8 the usual xterm values are assumed. nil for `.trueColor` and `.mono`.
    public func quantised(to depth: ColorDepth) -> UInt8? {
        switch depth {
        case .trueColor, .mono: nil
        case .indexed256: Oklab.nearest(to: self, in: Oklab.palette256, first: 16)
        case .ansi16: Oklab.nearest(to: self, in: Oklab.palette16, first: 0)
        case .ansi8: Oklab.nearest(to: self, in: Oklab.palette8, first: 0)
        }
    }
}

/// Björn Ottosson's Oklab: distances in it follow the eye. Written without a maths library, since the UI imports none.
struct Oklab: Sendable {
    var l: Double
    var a: Double
    var b: Double

    init(_ rgb: RGB) {
        let red = Oklab.linear[Int(rgb.red)], green = Oklab.linear[Int(rgb.green)], blue = Oklab.linear[Int(rgb.blue)]
        let l = Oklab.root(0.4122214708 * red + 0.5363325363 * green + 0.0514459929 * blue, 3)
        let m = Oklab.root(0.2119034982 * red + 0.6806995451 * green + 0.1073969566 * blue, 3)
        let s = Oklab.root(0.0883024619 * red + 0.2817188376 * green + 0.6299787005 * blue, 3)
        self.l = 0.2104542553 * l + 0.7936177850 * m - 0.0040720468 * s
        a = 1.9779984951 * l - 2.4285922050 * m + 0.4505937099 * s
        b = 0.0259040371 * l + 0.7827717662 * m - 0.8086757660 * s
    }

    init(l: Double, a: Double, b: Double) {
        self.l = l
        self.a = a
        self.b = b
    }

    func mixed(with other: Oklab, _ part: Double) -> Oklab {
        Oklab(l: l + (other.l - l) * part, a: a + (other.a - a) * part, b: b + (other.b - b) * part)
    }

    var rgb: RGB {
        let l = cube(self.l + 0.3963377774 * a + 0.2158037573 * b)
        let m = cube(self.l - 0.1055613458 * a - 0.0638541728 * b)
        let s = cube(self.l - 0.0894841775 * a - 1.2914855480 * b)
        return RGB(Oklab.encoded(4.0767416621 * l - 3.3077115913 * m + 0.2309699292 * s),
                   Oklab.encoded(-1.2684380046 * l + 2.6097574011 * m - 0.3413193965 * s),
                   Oklab.encoded(-0.0041960863 * l - 0.7034186147 * m + 1.7076147010 * s))
    }

    private func cube(_ x: Double) -> Double { x * x * x }

    private func distance(to other: Oklab) -> Double {
        // Lightness counts twice: on a terminal, losing the step between text and background hurts most.
        2 * (l - other.l) * (l - other.l) + (a - other.a) * (a - other.a) + (b - other.b) * (b - other.b)
    }

    static func nearest(to rgb: RGB, in palette: [Oklab], first: UInt8) -> UInt8 {
        let wanted = Oklab(rgb)
        var best = 0, bestDistance = Double.infinity
        for (index, candidate) in palette.enumerated() {
            let distance = wanted.distance(to: candidate)
            if distance < bestDistance { best = index; bestDistance = distance }
        }
        return UInt8(best) + first
    }

    /// n-th root by Newton's method, for 0...1; 40 steps reach the last bit from 1.
    private static func root(_ x: Double, _ n: Int) -> Double {
        guard x > 0 else { return 0 }
        var guess = 1.0
        for _ in 0..<40 {
            var power = 1.0
            for _ in 1..<n { power *= guess }
            let next = guess - (guess * power - x) / (Double(n) * power)
            if next == guess { break }
            guess = next
        }
        return guess
    }

    /// sRGB to linear light. x^2.4 = x² · (x^(1/5))².
    private static let linear: [Double] = (0..<256).map { value in
        let c = Double(value) / 255
        if c <= 0.04045 { return c / 12.92 }
        let x = (c + 0.055) / 1.055
        let fifth = root(x, 5)
        return x * x * fifth * fifth
    }

    /// Linear light to the nearest sRGB value, by search in the table above.
    private static func encoded(_ value: Double) -> UInt8 {
        if value <= 0 { return 0 }
        if value >= 1 { return 255 }
        var low = 0, high = 255
        while low < high {
            let middle = (low + high) / 2
            if linear[middle] < value { low = middle + 1 } else { high = middle }
        }
        if low > 0, value - linear[low - 1] < linear[low] - value { low -= 1 }
        return UInt8(low)
    }

    static let palette256: [Oklab] = {
        let levels: [UInt8] = [0, 95, 135, 175, 215, 255]
        var colours: [Oklab] = []
        for r in levels { for g in levels { for b in levels { colours.append(Oklab(RGB(r, g, b))) } } }
        for step in 0..<24 { let v = UInt8(8 + 10 * step); colours.append(Oklab(RGB(v, v, v))) }
        return colours
    }()

    static let palette16: [Oklab] = [
        RGB(0, 0, 0), RGB(205, 0, 0), RGB(0, 205, 0), RGB(205, 205, 0), RGB(0, 0, 238), RGB(205, 0, 205), RGB(0, 205, 205), RGB(229, 229, 229),
        RGB(127, 127, 127), RGB(255, 0, 0), RGB(0, 255, 0), RGB(255, 255, 0), RGB(92, 92, 255), RGB(255, 0, 255), RGB(0, 255, 255), RGB(255, 255, 255),
    ].map { Oklab($0) }

    static let palette8 = Array(palette16.prefix(8))
}
