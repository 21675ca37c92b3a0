extension Model {
    func drawLatencyView(_ canvas: inout Canvas, _ body: Rect) {
    }
}
